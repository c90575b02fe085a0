#include "imagestore/overlay_log.h"

#include <algorithm>
#include <cstring>
#include <string_view>

#include <xxhash.h>

#include "core/byte_reader.h"
#include "core/byte_writer.h"

namespace samepage::imagestore {
namespace {

constexpr std::string_view kHeaderMark = "SPoverly";
constexpr std::string_view kRecordMark = "SPov";
constexpr std::uint32_t kFormat = 1;
constexpr std::size_t kRecordLeadBytes = 4 + 4 + 8;  // Mark, u32 size, u64 checksum.

void write_mark(ByteWriter& writer, std::string_view mark) {
  writer.raw(std::as_bytes(std::span(mark)));
}

Result<void> expect_mark(ByteReader& reader, std::string_view mark) {
  const auto bytes = TRY(reader.raw(mark.size()));
  if (std::memcmp(bytes.data(), mark.data(), mark.size()) == 0) return {};
  return fail(Errc::kCorrupt, "no overlay's log");
}

std::uint64_t checksum(std::span<const std::byte> bytes) {
  return XXH3_64bits_withSeed(bytes.data(), bytes.size(), bytes.size());
}

Result<VersionId> read_id(ByteReader& reader) {
  VersionId id;
  const auto bytes = TRY(reader.raw(id.bytes.size()));
  std::copy(bytes.begin(), bytes.end(), id.bytes.begin());
  return id;
}

Result<StateRun> read_run(ByteReader& reader, std::uint64_t from, std::uint64_t pages) {
  StateRun run;
  run.first = from + TRY(reader.varint(pages - from));
  run.count = TRY(reader.varint(pages - run.first));
  if (run.count == 0) return fail(Errc::kCorrupt, "a run of no pages");
  const std::uint8_t state = TRY(reader.u8());
  if (state > static_cast<std::uint8_t>(PageState::kZero)) {
    return fail(Errc::kCorrupt, "a page in an unknown state");
  }
  run.state = static_cast<PageState>(state);
  return run;
}

}  // namespace

std::vector<std::byte> encode_overlay_header(const OverlayRoot& root) {
  ByteWriter writer;
  write_mark(writer, kHeaderMark);
  writer.u32(kFormat);
  writer.u32(0);
  writer.u64(root.size_bytes);
  writer.raw(root.base.bytes);
  writer.u64(checksum(writer.view()));
  return writer.take();
}

Result<OverlayRoot> decode_overlay_header(std::span<const std::byte> bytes) {
  ByteReader reader(bytes);
  TRY(expect_mark(reader, kHeaderMark));
  if (TRY(reader.u32()) != kFormat) {
    return fail(Errc::kInvalid, "the disk's overlay was written by another release");
  }
  TRY(reader.u32());
  OverlayRoot root;
  root.size_bytes = TRY(reader.u64());
  root.base = TRY(read_id(reader));
  const std::size_t covered = bytes.size() - reader.remaining();
  if (TRY(reader.u64()) != checksum(bytes.first(covered))) {
    return fail(Errc::kCorrupt, "the overlay's header is damaged");
  }
  if (root.size_bytes == 0 || root.size_bytes > kImageBytesMax) {
    return fail(Errc::kCorrupt, "the overlay's size is out of range");
  }
  return root;
}

std::vector<std::byte> encode_overlay_record(const OverlayRecord& record) {
  ByteWriter payload;
  payload.raw(record.committed.bytes);
  payload.varint(record.runs.size());
  std::uint64_t end = 0;
  for (const StateRun& run : record.runs) {
    payload.varint(run.first - end);
    payload.varint(run.count);
    payload.u8(static_cast<std::uint8_t>(run.state));
    end = run.first + run.count;
  }
  ByteWriter writer;
  write_mark(writer, kRecordMark);
  writer.u32(static_cast<std::uint32_t>(payload.size()));
  writer.u64(checksum(payload.view()));
  writer.raw(payload.view());
  return writer.take();
}

Result<DecodedRecord> decode_overlay_record(std::span<const std::byte> bytes, std::uint64_t pages) {
  ByteReader reader(bytes);
  TRY(expect_mark(reader, kRecordMark));
  const std::uint32_t size = TRY(reader.u32());
  const std::uint64_t sum = TRY(reader.u64());
  const auto payload = TRY(reader.raw(size));
  if (checksum(payload) != sum) return fail(Errc::kCorrupt, "a record of the overlay is damaged");
  ByteReader fields(payload);
  DecodedRecord decoded;
  decoded.bytes = kRecordLeadBytes + size;
  decoded.record.committed = TRY(read_id(fields));
  const std::uint64_t runs = TRY(fields.varint(kOverlayRecordRunsMax));
  std::uint64_t end = 0;
  for (std::uint64_t i = 0; i < runs; ++i) {
    const StateRun run = TRY(read_run(fields, end, pages));
    end = run.first + run.count;
    decoded.record.runs.push_back(run);
  }
  if (!fields.at_end()) return fail(Errc::kCorrupt, "a record of the overlay is too long");
  return decoded;
}

}  // namespace samepage::imagestore
