#include <algorithm>
#include <cstring>
#include <utility>

#include "core/check.h"
#include "migrator/batch.h"
#include "migrator/batch_codes.h"
#include "migrator/page_delta.h"

namespace samepage::migrator {
namespace {

void write_header(const BatchHeader& header, ByteWriter& body) {
  body.varint(header.sequence);
  body.varint(header.begin);
  body.varint(header.size);
  body.raw(header.mac.bytes);
}

}  // namespace

PageDigest stretch_mac(const DigestKey& key, std::uint64_t sequence,
                       std::span<const std::byte> stretch) {
  ByteWriter number;
  number.u64(sequence);
  StreamMac mac(key);
  mac.update(stretch);
  mac.update(number.view());
  return mac.current();
}

// A run goes on while each record is that of the next page.
void BatchEncoder::extend(BatchKind kind, bool bare, std::uint64_t count, std::uint64_t page) {
  stream_bytes_ += count * (bare ? kPageSize : stream_bytes_of(kind));
  CHECK(stream_bytes_ <= kBatchStreamBytesMax);
  if (!ops_.empty() && ops_.back().kind == kind && !ops_.back().bare && !bare) {
    Op& last = ops_.back();
    if (kind == BatchKind::kLiteral || page == last.page + last.count) {
      last.count += count;
      return;
    }
  }
  ops_.push_back({.kind = kind, .bare = bare, .count = count, .page = page});
}

void BatchEncoder::add_literal(std::span<const std::byte> bytes) {
  if (bytes.empty()) return;
  add_part(bytes);
  extend(BatchKind::kLiteral, false, bytes.size(), 0);
}

void BatchEncoder::add_zero_page(const StreamToken& record) {
  if (record.bytes.size() != kZeroRecordBytes) return add_literal(record.bytes);
  extend(BatchKind::kZeros, false, 1, record.header / kPageSize);
}

void BatchEncoder::begin_page(BatchKind kind, const StreamToken& record) {
  const auto before = record.before_page();
  const bool bare = before.size() != kHeaderBytes || record.header % kPageSize != kPageFlags;
  if (bare) add_literal(before);
  if (kind == BatchKind::kFound || kind == BatchKind::kPlaced) {
    const std::size_t header = bare ? 0 : kHeaderBytes;
    ref_offsets_.push_back(static_cast<std::uint32_t>(stream_bytes_ + header));
  }
  extend(kind, bare, 1, record.header / kPageSize);
}

void BatchEncoder::add_page(const StreamToken& record) {
  begin_page(BatchKind::kPages, record);
  add_part(record.page());
}

void BatchEncoder::add_found(const StreamToken& record, PageHash hash) {
  begin_page(BatchKind::kFound, record);
  hashes_.push_back(hash);
}

void BatchEncoder::add_placed(const StreamToken& record) {
  begin_page(BatchKind::kPlaced, record);
}

void BatchEncoder::add_copy(const StreamToken& record, std::uint64_t place) {
  begin_page(BatchKind::kCopies, record);
  places_.push_back(place);
}

bool BatchEncoder::add_delta(const StreamToken& record, std::uint64_t place, PageView older,
                             std::size_t bytes_max) {
  std::vector<std::byte> delta;
  if (!append_delta(older, record.page(), bytes_max, delta)) return false;
  begin_page(BatchKind::kDeltas, record);
  places_.push_back(place);
  add_part(deltas_.emplace_back(std::move(delta)));
  return true;
}

void BatchEncoder::add_part(std::span<const std::byte> literal) {
  literals_.push_back(literal);
  literal_bytes_ += literal.size();
}

void BatchEncoder::write_ops(ByteWriter& head) const {
  Expected expected;
  auto place = places_.begin();
  for (const Op& op : ops_) {
    head.varint(op.count << kKindBits | (op.bare ? kBareBit : 0U) |
                static_cast<std::uint64_t>(op.kind));
    if (op.kind == BatchKind::kLiteral) continue;
    head.varint(zigzag(op.page - expected.page));
    expected.page = op.page + op.count;
    if (!has_place(op.kind)) continue;
    for (std::uint64_t i = 0; i < op.count; ++i, ++place) {
      head.varint(zigzag(*place - expected.place));
      expected.place = *place + kPageRecordBytes;
    }
  }
  head.varint(0);
}

void BatchEncoder::gather_literals(std::span<std::byte> to) const {
  for (const auto literal : literals_) {
    std::memcpy(to.data(), literal.data(), literal.size());
    to = to.subspan(literal.size());
  }
}

StreamBytes BatchEncoder::copy_literals(ByteWriter& head) {
  StreamBytes tail = slabs_.take_bytes(literal_bytes_);
  gather_literals(tail.bytes);
  BytePacker::announce_plain(literal_bytes_, head);
  return tail;
}

StreamBytes BatchEncoder::pack_literals(int zstd_level, ByteWriter& head, bool& packed) {
  const auto gathered = gathered_.bytes(literal_bytes_);
  gather_literals(gathered);
  StreamBytes tail = slabs_.take_bytes(BytePacker::packed_bytes_max(literal_bytes_));
  const auto written = packer_.pack(gathered, zstd_level, head, tail.bytes);
  slabs_.trim(tail, written.size);
  packed = written.packed;
  return tail;
}

EncodedBatch BatchEncoder::finish(const BatchHeader& header, int zstd_level) {
  CHECK(stream_bytes_ == header.size);
  ByteWriter head;
  write_header(header, head);
  write_ops(head);
  for (const PageHash& hash : hashes_) head.u64(hash.value);
  EncodedBatch batch;
  batch.literal_bytes = literal_bytes_;
  const bool pack = zstd_level != kPackNothing && literal_bytes_ > 0;
  batch.tail = pack ? pack_literals(zstd_level, head, batch.packed) : copy_literals(head);
  batch.head = head.take();
  batch.ref_offsets = std::exchange(ref_offsets_, {});
  clear();
  return batch;
}

void BatchEncoder::clear() {
  ops_.clear();
  hashes_.clear();
  places_.clear();
  ref_offsets_.clear();
  literals_.clear();
  deltas_.clear();
  literal_bytes_ = 0;
  stream_bytes_ = 0;
}

EncodedBatch pipe_batch(const BatchHeader& header, StreamBytes stretch) {
  const std::size_t size = stretch.bytes.size();
  CHECK(size == header.size);
  ByteWriter head;
  write_header(header, head);
  write_plain_front(size, head);
  return {.head = head.take(),
          .tail = std::move(stretch),
          .ref_offsets = {},
          .literal_bytes = size,
          .packed = false};
}

}  // namespace samepage::migrator
