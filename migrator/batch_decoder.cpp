#include <algorithm>
#include <cstring>

#include "migrator/batch.h"
#include "migrator/batch_codes.h"
#include "migrator/page_delta.h"

namespace samepage::migrator {
namespace {

struct Op {
  BatchKind kind = BatchKind::kLiteral;
  bool bare = false;
  std::uint64_t count = 0;
  std::uint64_t page = 0;

  std::size_t unit_bytes() const { return bare ? kPageSize : stream_bytes_of(kind); }
};

struct Ops {
  std::vector<Op> all;
  std::vector<std::uint64_t> places;  ///< In the order of the operations.
  std::size_t found = 0;              ///< Pages that have a hash.
};

Result<void> read_places(ByteReader& reader, std::uint64_t count, std::uint64_t begin,
                         Expected& expected, std::vector<std::uint64_t>& places) {
  for (std::uint64_t i = 0; i < count; ++i) {
    const std::uint64_t place = expected.place + unzigzag(TRY(reader.varint()));
    if (place > begin || begin - place < kPageSize) {
      return fail(Errc::kCorrupt, "a place that does not lie before the batch");
    }
    places.push_back(place);
    expected.place = place + kPageRecordBytes;
  }
  return {};
}

Result<Op> read_op(std::uint64_t code, ByteReader& reader, Expected& expected) {
  Op op{.kind = static_cast<BatchKind>(code & kKindMask),
        .bare = (code & kBareBit) != 0,
        .count = code >> kKindBits};
  if (op.count == 0) return fail(Errc::kCorrupt, "an operation of no bytes");
  if (op.kind > BatchKind::kDeltas) return fail(Errc::kCorrupt, "an operation of no known kind");
  const bool may_be_bare = op.kind >= BatchKind::kPages && op.count == 1;
  if (op.bare && !may_be_bare) return fail(Errc::kCorrupt, "an operation without its headers");
  if (op.kind == BatchKind::kLiteral) return op;
  op.page = expected.page + unzigzag(TRY(reader.varint()));
  expected.page = op.page + op.count;
  return op;
}

// Every operation stands for at least a byte of the stream, so the stream's bound is theirs too.
Result<Ops> read_ops(ByteReader& reader, const BatchHeader& header) {
  Ops ops;
  Expected expected;
  std::size_t bytes = 0;
  for (;;) {
    const auto code = TRY(reader.varint((kBatchStreamBytesMax + 1) << kKindBits));
    if (code == 0) break;
    const Op op = TRY(read_op(code, reader, expected));
    bytes += op.count * op.unit_bytes();
    if (bytes > header.size) return fail(Errc::kCorrupt, "a batch of too many bytes");
    if (op.kind == BatchKind::kFound) ops.found += op.count;
    if (has_place(op.kind)) {
      TRY(read_places(reader, op.count, header.begin, expected, ops.places));
    }
    ops.all.push_back(op);
  }
  if (bytes != header.size) return fail(Errc::kCorrupt, "a batch of too few bytes");
  return ops;
}

Result<std::vector<PageHash>> read_hashes(ByteReader& reader, std::size_t count) {
  std::vector<PageHash> hashes;
  for (std::size_t i = 0; i < count; ++i) hashes.push_back({TRY(reader.u64())});
  return hashes;
}

void put_header(std::uint64_t header, std::byte* to) {
  for (std::size_t i = 0; i < kHeaderBytes; ++i) {
    to[i] = static_cast<std::byte>(header >> (8 * (kHeaderBytes - 1 - i)));
  }
}

/// Puts the operations' bytes into the stretch, one after the other.
class Layout {
 public:
  Layout(std::span<std::byte> stretch, std::span<const std::byte> literals, const Ops& ops,
         std::span<const PageHash> hashes)
      : stretch_(stretch), literals_(literals), places_(ops.places), hashes_(hashes) {}

  Result<void> add(const Op& op) {
    if (op.kind == BatchKind::kLiteral) return copy(op.count);
    for (std::uint64_t i = 0; i < op.count; ++i) TRY(add_record(op, op.page + i));
    return {};
  }

  std::span<const std::byte> literals_left() const { return literals_; }
  std::vector<BatchGap> take_gaps() { return std::move(gaps_); }

 private:
  Result<void> add_record(const Op& op, std::uint64_t page) {
    const bool zero = op.kind == BatchKind::kZeros;
    if (!op.bare) {
      put_header(page * kPageSize | (zero ? kZeroFlags : kPageFlags), stretch_.data() + at_);
      at_ += kHeaderBytes;
    }
    if (zero) {
      stretch_[at_++] = std::byte{0};
      return {};
    }
    if (op.kind == BatchKind::kPages) return copy(kPageSize);
    return add_gap(op.kind, page);
  }

  Result<void> add_gap(BatchKind kind, std::uint64_t page) {
    BatchGap gap;
    gap.kind = kind;
    gap.offset = static_cast<std::uint32_t>(at_);
    gap.page = page;
    if (kind == BatchKind::kFound) gap.hash = front(hashes_);
    if (has_place(kind)) gap.place = front(places_);
    if (kind == BatchKind::kDeltas) {
      gap.delta = literals_;
      // The gap itself is of no use yet, and serves to find the end of the delta.
      literals_ = TRY(apply_delta(literals_, stretch_.subspan(at_).first<kPageSize>()));
    }
    gaps_.push_back(gap);
    at_ += kPageSize;
    return {};
  }

  Result<void> copy(std::size_t size) {
    if (size > literals_.size()) return fail(Errc::kCorrupt, "a batch without all its literals");
    std::memcpy(stretch_.data() + at_, literals_.data(), size);
    literals_ = literals_.subspan(size);
    at_ += size;
    return {};
  }

  template <class Item>
  static Item front(std::span<const Item>& items) {
    const Item item = items.front();
    items = items.subspan(1);
    return item;
  }

  const std::span<std::byte> stretch_;
  std::span<const std::byte> literals_;
  std::span<const std::uint64_t> places_;
  std::span<const PageHash> hashes_;
  std::size_t at_ = 0;
  std::vector<BatchGap> gaps_;
};

}  // namespace

Result<BatchBody> decode_batch_header(std::span<const std::byte> body) {
  ByteReader reader(body);
  BatchBody decoded;
  decoded.header.sequence = TRY(reader.varint());
  decoded.header.begin = TRY(reader.varint());
  decoded.header.size = TRY(reader.varint(kBatchStreamBytesMax));
  if (decoded.header.size == 0) return fail(Errc::kCorrupt, "a batch of no bytes");
  const auto mac = TRY(reader.raw(decoded.header.mac.bytes.size()));
  std::copy(mac.begin(), mac.end(), decoded.header.mac.bytes.begin());
  decoded.rest = body.last(reader.remaining());
  return decoded;
}

bool BatchBody::is_pipe() const {
  ByteWriter front;
  write_plain_front(header.size, front);
  return rest.size() == front.size() + header.size &&
         std::ranges::equal(rest.first(front.size()), front.view());
}

Result<std::vector<BatchGap>> decode_batch(const BatchBody& body, ByteUnpacker& unpacker,
                                           std::span<std::byte> stretch) {
  ByteReader reader(body.rest);
  const Ops ops = TRY(read_ops(reader, body.header));
  const auto hashes = TRY(read_hashes(reader, ops.found));
  const auto literals = TRY(unpacker.unpack(reader, body.header.size));
  if (!reader.at_end()) return fail(Errc::kCorrupt, "bytes behind the end of a batch");

  Layout layout(stretch, literals, ops, hashes);
  for (const Op& op : ops.all) TRY(layout.add(op));
  if (!layout.literals_left().empty()) return fail(Errc::kCorrupt, "literals of no use");
  return layout.take_gaps();
}

}  // namespace samepage::migrator
