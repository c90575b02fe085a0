#include "imagestore/page_parcel.h"

#include <algorithm>

#include <xxhash.h>
#include <zstd.h>

#include "core/byte_reader.h"
#include "core/byte_writer.h"
#include "core/check.h"

namespace samepage::imagestore {
namespace {

constexpr std::uint32_t kMark = 0x70635053;  // "SPcp"
constexpr int kLevel = 1;
constexpr std::uint8_t kPlain = 0;
constexpr std::uint8_t kPacked = 1;

std::uint64_t checksum(std::span<const std::byte> bytes) {
  return XXH3_64bits_withSeed(bytes.data(), bytes.size(), bytes.size());
}

Result<StateRun> read_run(ByteReader& reader, std::uint64_t from, std::uint64_t pages) {
  StateRun run;
  run.first = from + TRY(reader.varint(pages - from));
  run.count = TRY(reader.varint(pages - run.first));
  const std::uint8_t state = TRY(reader.u8());
  run.state = static_cast<PageState>(state);
  const bool is_sent = run.state == PageState::kWritten || run.state == PageState::kZero;
  if (run.count == 0 || !is_sent) return fail(Errc::kCorrupt, "no run of pages");
  return run;
}

Result<std::vector<std::byte>> unpack(std::span<const std::byte> body, std::uint8_t form,
                                      std::size_t size) {
  std::vector<std::byte> bytes(size);
  if (form == kPlain && body.size() == size) {
    std::copy(body.begin(), body.end(), bytes.begin());
    return bytes;
  }
  if (form != kPacked) return fail(Errc::kCorrupt, "a parcel of pages in an unknown form");
  const std::size_t got = ZSTD_decompress(bytes.data(), size, body.data(), body.size());
  if (ZSTD_isError(got) != 0 || got != size) {
    return fail(Errc::kCorrupt, "a parcel of pages cannot be unpacked");
  }
  return bytes;
}

}  // namespace

std::vector<std::byte> encode_parcel(const PageParcel& parcel) {
  CHECK(parcel.runs.size() <= kParcelRunsMax);
  CHECK(parcel.bytes.size() <= kParcelPagesMax * kPageSize);
  ByteWriter payload;
  payload.varint(parcel.runs.size());
  std::uint64_t end = 0;
  for (const StateRun& run : parcel.runs) {
    payload.varint(run.first - end);
    payload.varint(run.count);
    payload.u8(static_cast<std::uint8_t>(run.state));
    end = run.first + run.count;
  }
  std::vector<std::byte> packed(ZSTD_compressBound(parcel.bytes.size()));
  const std::size_t size =
      ZSTD_compress(packed.data(), packed.size(), parcel.bytes.data(), parcel.bytes.size(), kLevel);
  const bool pays = ZSTD_isError(size) == 0 && size < parcel.bytes.size();
  payload.u8(pays ? kPacked : kPlain);
  payload.raw(pays ? std::span<const std::byte>(packed).first(size) : parcel.bytes);
  ByteWriter writer;
  writer.u32(kMark);
  writer.u64(checksum(payload.view()));
  writer.raw(payload.view());
  return writer.take();
}

Result<PageParcel> decode_parcel(std::span<const std::byte> bytes, std::uint64_t pages) {
  if (bytes.size() > kParcelBytesMax) return fail(Errc::kCorrupt, "too large a parcel of pages");
  ByteReader reader(bytes);
  if (TRY(reader.u32()) != kMark) return fail(Errc::kCorrupt, "no parcel of pages");
  const std::uint64_t sum = TRY(reader.u64());
  const auto payload = TRY(reader.raw(reader.remaining()));
  if (checksum(payload) != sum) return fail(Errc::kCorrupt, "a parcel of pages is damaged");
  ByteReader fields(payload);
  PageParcel parcel;
  const std::uint64_t runs = TRY(fields.varint(kParcelRunsMax));
  std::uint64_t end = 0;
  std::uint64_t written = 0;
  for (std::uint64_t i = 0; i < runs; ++i) {
    const StateRun run = TRY(read_run(fields, end, pages));
    end = run.first + run.count;
    if (run.state == PageState::kWritten) written += run.count;
    if (written > kParcelPagesMax) return fail(Errc::kCorrupt, "too many pages in a parcel");
    parcel.runs.push_back(run);
  }
  const std::uint8_t form = TRY(fields.u8());
  const auto body = TRY(fields.raw(fields.remaining()));
  parcel.bytes = TRY(unpack(body, form, written * kPageSize));
  return parcel;
}

}  // namespace samepage::imagestore
