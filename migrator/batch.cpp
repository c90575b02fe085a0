#include "migrator/batch.h"

#include <algorithm>
#include <cstring>

#include "core/check.h"

namespace samepage::migrator {
namespace {

constexpr std::size_t kHeaderBytes = 8;
constexpr std::size_t kZeroRecordBytes = kHeaderBytes + 1;
constexpr std::size_t kPageRecordBytes = kHeaderBytes + kPageSize;

bool has_header(BatchOp::Kind kind) {
  return kind == BatchOp::Kind::kRefs || kind == BatchOp::Kind::kZeros;
}

bool has_refs(BatchOp::Kind kind) {
  return kind == BatchOp::Kind::kRefs || kind == BatchOp::Kind::kBareRefs;
}

/// What one of an operation's `count` stands for in the stream.
std::size_t unit_bytes(BatchOp::Kind kind) {
  switch (kind) {
    case BatchOp::Kind::kLiteral:
      return 1;
    case BatchOp::Kind::kRefs:
      return kPageRecordBytes;
    case BatchOp::Kind::kZeros:
      return kZeroRecordBytes;
    case BatchOp::Kind::kBareRefs:
      return kPageSize;
  }
  return 1;
}

void put_header(std::uint64_t header, std::span<std::byte> to) {
  for (std::size_t i = 0; i < kHeaderBytes; ++i) {
    to[i] = static_cast<std::byte>(header >> (8 * (kHeaderBytes - 1 - i)));
  }
}

struct Ops {
  std::vector<BatchOp> all;
  std::size_t stream_bytes = 0;
  std::size_t literal_bytes = 0;
  std::size_t refs = 0;
};

// Every operation stands for at least a byte of the stream, so the stream's bound is theirs too.
Result<Ops> decode_ops(ByteReader& reader) {
  Ops ops;
  for (;;) {
    const auto code = TRY(reader.varint(4 * kBatchStreamBytesMax + 3));
    if (code == 0) return ops;
    BatchOp op{.kind = static_cast<BatchOp::Kind>(code & 3U), .count = code >> 2U};
    if (op.count == 0) return fail(Errc::kCorrupt, "an operation of no bytes");
    const std::size_t bytes = op.count * unit_bytes(op.kind);
    if (bytes > kBatchStreamBytesMax - ops.stream_bytes) {
      return fail(Errc::kCorrupt, "a batch of too many bytes");
    }
    if (has_header(op.kind)) op.header = TRY(reader.u64());
    if (has_refs(op.kind)) ops.refs += op.count;
    if (op.kind == BatchOp::Kind::kLiteral) ops.literal_bytes += op.count;
    ops.stream_bytes += bytes;
    ops.all.push_back(op);
  }
}

Result<PageRef> decode_ref(ByteReader& reader) {
  PageRef ref;
  ref.hash.value = TRY(reader.u64());
  const auto digest = TRY(reader.raw(ref.digest.bytes.size()));
  std::copy(digest.begin(), digest.end(), ref.digest.bytes.begin());
  return ref;
}

Result<PageDigest> decode_mac(ByteReader& reader) {
  PageDigest mac;
  const auto bytes = TRY(reader.raw(mac.bytes.size()));
  std::copy(bytes.begin(), bytes.end(), mac.bytes.begin());
  return mac;
}

/// Writes one record of a run, or one bare page, at `at`. Returns where the next one begins.
std::size_t lay_out_unit(const BatchOp& op, std::uint64_t number, std::size_t at, Batch& batch) {
  const std::size_t end = at + unit_bytes(op.kind);
  if (has_header(op.kind)) {
    put_header(op.header + number * kPageSize, std::span(batch.stream).subspan(at));
    at += kHeaderBytes;
  }
  if (has_refs(op.kind))
    batch.holes.push_back({.offset = static_cast<std::uint32_t>(at), .ref = {}});
  return end;
}

/// The stream without the referenced pages, and a hole for each of them, which names none yet.
void lay_out(const Ops& ops, std::span<const std::byte> literals, Batch& batch) {
  batch.stream.resize(ops.stream_bytes);
  batch.holes.reserve(ops.refs);
  std::size_t at = 0;
  for (const BatchOp& op : ops.all) {
    if (op.kind == BatchOp::Kind::kLiteral) {
      std::memcpy(batch.stream.data() + at, literals.data(), op.count);
      literals = literals.subspan(op.count);
      at += op.count;
      continue;
    }
    for (std::uint64_t i = 0; i < op.count; ++i) at = lay_out_unit(op, i, at, batch);
  }
}

}  // namespace

// A run goes on while each record's header is the one before plus a page, with the same flags.
void BatchBuilder::extend(BatchOp::Kind kind, std::uint64_t count, std::uint64_t header) {
  stream_bytes_ += count * unit_bytes(kind);
  CHECK(stream_bytes_ <= kBatchStreamBytesMax);
  if (!ops_.empty() && ops_.back().kind == kind) {
    BatchOp& last = ops_.back();
    if (!has_header(kind) || header == last.header + last.count * kPageSize) {
      last.count += count;
      return;
    }
  }
  ops_.push_back({.kind = kind, .count = count, .header = header});
}

void BatchBuilder::add_literal(std::span<const std::byte> bytes) {
  if (bytes.empty()) return;
  literals_.insert(literals_.end(), bytes.begin(), bytes.end());
  extend(BatchOp::Kind::kLiteral, bytes.size(), 0);
}

void BatchBuilder::add_zero_page(const StreamToken& record) {
  if (record.bytes.size() != kZeroRecordBytes) return add_literal(record.bytes);
  extend(BatchOp::Kind::kZeros, 1, record.header);
}

void BatchBuilder::add_page_ref(const StreamToken& record, const PageRef& ref) {
  const auto before = record.before_page();
  ref_offsets_.push_back(static_cast<std::uint32_t>(stream_bytes_ + before.size()));
  refs_.push_back(ref);
  if (before.size() == kHeaderBytes) {
    extend(BatchOp::Kind::kRefs, 1, record.header);
  } else {
    add_literal(before);
    extend(BatchOp::Kind::kBareRefs, 1, 0);
  }
}

std::vector<std::byte> BatchBuilder::finish(std::uint64_t sequence, const PageDigest& mac) {
  ByteWriter body;
  body.u64(sequence);
  for (const BatchOp& op : ops_) {
    body.varint(op.count << 2U | static_cast<std::uint64_t>(op.kind));
    if (has_header(op.kind)) body.u64(op.header);
  }
  body.varint(0);
  for (const PageRef& ref : refs_) {
    body.u64(ref.hash.value);
    body.raw(ref.digest.bytes);
  }
  packer_.pack(literals_, body);
  body.raw(mac.bytes);

  ops_.clear();
  refs_.clear();
  ref_offsets_.clear();
  literals_.clear();
  stream_bytes_ = 0;
  return body.take();
}

Result<Batch> decode_batch(std::span<const std::byte> body, ByteUnpacker& unpacker) {
  ByteReader reader(body);
  Batch batch;
  batch.sequence = TRY(reader.u64());
  const Ops ops = TRY(decode_ops(reader));
  std::vector<PageRef> refs;
  for (std::size_t i = 0; i < ops.refs; ++i) refs.push_back(TRY(decode_ref(reader)));
  const auto literals = TRY(unpacker.unpack(reader, ops.literal_bytes));
  batch.mac = TRY(decode_mac(reader));
  if (!reader.at_end()) return fail(Errc::kCorrupt, "bytes behind the end of a batch");

  lay_out(ops, literals, batch);
  for (std::size_t i = 0; i < refs.size(); ++i) batch.holes[i].ref = refs[i];
  return batch;
}

}  // namespace samepage::migrator
