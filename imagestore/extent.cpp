#include "imagestore/extent.h"

#include <cstring>
#include <string>
#include <utility>

#if defined(__x86_64__)
#include <xxh_x86dispatch.h>  // The same functions, for the CPU at hand.
#else
#include <xxhash.h>
#endif
#include <zstd.h>

#include "core/check.h"

namespace samepage::imagestore {
namespace {

enum class Codec : std::uint8_t { kNone = 0, kZstd = 1 };

// Level 1 compresses disk images 2.7 times at 400 MB/s a core; higher levels gain a few percent.
constexpr int kZstdLevel = 1;

std::span<const std::byte> octets(std::span<const PageDigest> digests) {
  static_assert(sizeof(PageDigest) == sizeof(PageDigest::bytes));
  return std::as_bytes(digests);
}

/// The compressed pages, or nothing when they save less than an eighth.
std::vector<std::byte> compress(std::span<const std::byte> pages) {
  std::vector<std::byte> packed(pages.size() - pages.size() / 8);
  const std::size_t size =
      ZSTD_compress(packed.data(), packed.size(), pages.data(), pages.size(), kZstdLevel);
  packed.resize(ZSTD_isError(size) != 0 ? 0 : size);
  return packed;
}

Result<std::vector<std::byte>> decompress(std::span<const std::byte> packed, std::size_t size) {
  std::vector<std::byte> pages(size);
  const std::size_t written =
      ZSTD_decompress(pages.data(), pages.size(), packed.data(), packed.size());
  if (ZSTD_isError(written) != 0 || written != size) {
    return fail(Errc::kCorrupt, "an extent does not decompress to its pages");
  }
  return pages;
}

Result<std::vector<PageDigest>> read_digests(ByteReader& reader, const DomainKeys& keys) {
  TRY(expect_header(reader, {.kind = ObjectKind::kExtent, .key_id = keys.id}));
  const std::size_t count = TRY(reader.u8());
  if (count == 0 || count > kExtentPagesMax) {
    return fail(Errc::kCorrupt, "an extent of " + std::to_string(count) + " pages");
  }
  const auto bytes = TRY(reader.raw(count * sizeof(PageDigest)));
  std::vector<PageDigest> digests(count);
  std::copy(bytes.begin(), bytes.end(), std::as_writable_bytes(std::span(digests)).begin());
  return digests;
}

}  // namespace

std::uint64_t extent_checksum(const ObjectName& name, std::span<const std::byte> bytes) {
  std::uint64_t seed = 0;
  std::memcpy(&seed, name.bytes.data(), sizeof(seed));
  return XXH3_64bits_withSeed(bytes.data(), bytes.size(), seed);
}

ObjectName extent_name(std::span<const PageDigest> digests, const DomainKeys& keys) {
  // Only extents have names over whole digests without a header: no node or version is as long as
  // a multiple of 32 bytes.
  return name_object(octets(digests), keys);
}

EncodedExtent encode_extent(const Extent& extent, const DomainKeys& keys) {
  CHECK(!extent.digests.empty());
  CHECK(extent.digests.size() <= kExtentPagesMax);
  CHECK(extent.pages.size() == extent.digests.size() * kPageSize);
  const auto packed = compress(extent.pages);
  ByteWriter writer;
  write_header(writer, {.kind = ObjectKind::kExtent, .key_id = keys.id});
  writer.u8(static_cast<std::uint8_t>(extent.digests.size()));
  writer.raw(octets(extent.digests));
  writer.u8(static_cast<std::uint8_t>(packed.empty() ? Codec::kNone : Codec::kZstd));
  writer.raw(packed.empty() ? extent.pages : packed);
  return {.name = extent_name(extent.digests, keys), .bytes = writer.take()};
}

Result<std::vector<PageDigest>> decode_extent_digests(std::span<const std::byte> bytes,
                                                      const DomainKeys& keys) {
  ByteReader reader(bytes);
  return read_digests(reader, keys);
}

Result<ExtentView> view_extent(std::span<const std::byte> bytes, const DomainKeys& keys) {
  ByteReader reader(bytes);
  TRY(expect_header(reader, {.kind = ObjectKind::kExtent, .key_id = keys.id}));
  ExtentView view;
  view.count = TRY(reader.u8());
  if (view.count == 0 || view.count > kExtentPagesMax) {
    return fail(Errc::kCorrupt, "an extent of " + std::to_string(view.count) + " pages");
  }
  view.digests = TRY(reader.raw(view.count * sizeof(PageDigest)));
  const auto codec = static_cast<Codec>(TRY(reader.u8()));
  view.is_compressed = codec == Codec::kZstd;
  view.body = TRY(reader.raw(reader.remaining()));
  if (!view.is_compressed &&
      (codec != Codec::kNone || view.body.size() != view.count * kPageSize)) {
    return fail(Errc::kCorrupt, "an extent of an unknown encoding");
  }
  return view;
}

Result<Extent> decode_extent(std::span<const std::byte> bytes, const DomainKeys& keys) {
  const auto view = TRY(view_extent(bytes, keys));
  Extent extent;
  extent.digests.resize(view.count);
  std::copy(view.digests.begin(), view.digests.end(),
            std::as_writable_bytes(std::span(extent.digests)).begin());
  if (view.is_compressed) {
    extent.pages = TRY(decompress(view.body, view.count * kPageSize));
  } else {
    extent.pages.assign(view.body.begin(), view.body.end());
  }
  return extent;
}

}  // namespace samepage::imagestore
