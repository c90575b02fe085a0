#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "core/page.h"
#include "core/page_digest.h"
#include "core/result.h"
#include "imagestore/object_format.h"
#include "imagestore/origin.h"

namespace samepage::imagestore {

/// Pages of one extent at most: 128 KiB.
inline constexpr std::size_t kExtentPagesMax = 32;

/// A run of pages that is stored, and fetched, as one object. It carries its pages' digests, so
/// that an index of pages can be rebuilt from the extents alone.
struct Extent {
  std::vector<PageDigest> digests;  ///< 1 to kExtentPagesMax, one per page.
  std::vector<std::byte> pages;     ///< digests.size() * kPageSize bytes.

  PageView page(std::size_t slot) const {
    return PageView(pages.data() + slot * kPageSize, kPageSize);
  }
};

/// Where a page is: which extent, and which page of it.
struct PagePlace {
  ObjectName extent;
  std::uint32_t slot = 0;  ///< Below kExtentPagesMax.

  friend bool operator==(const PagePlace&, const PagePlace&) = default;
};

struct EncodedExtent {
  ObjectName name;
  std::vector<std::byte> bytes;
};

/// Compresses with zstd when that saves at least an eighth. Pure; digests are taken as given.
EncodedExtent encode_extent(const Extent& extent, const DomainKeys& keys);

/// An extent's object, taken apart but neither decompressed nor verified; borrows its bytes.
struct ExtentView {
  std::size_t count = 0;               ///< Pages, 1 to kExtentPagesMax.
  std::span<const std::byte> digests;  ///< Of the pages, one after the other.
  bool is_compressed = false;
  std::span<const std::byte> body;  ///< The pages, by zstd when compressed.
};

/// kCorrupt: not an extent, or one of another domain.
Result<ExtentView> view_extent(std::span<const std::byte> bytes, const DomainKeys& keys);

/// kCorrupt: not an extent, or its contents do not decompress to whole pages. Pages are *not*
/// digested here: whoever uses one verifies that one.
Result<Extent> decode_extent(std::span<const std::byte> bytes, const DomainKeys& keys);

/// The digests alone, without decompressing. kCorrupt as above.
Result<std::vector<PageDigest>> decode_extent_digests(std::span<const std::byte> bytes,
                                                      const DomainKeys& keys);

/// A checksum of an extent's object, for readers of memory that only a party writes whom they
/// trust, and who has verified the object: it shows damage at the speed of memory, and no malice.
std::uint64_t extent_checksum(const ObjectName& name, std::span<const std::byte> bytes);

/// The name of an extent of these pages: the digest of their digests.
ObjectName extent_name(std::span<const PageDigest> digests, const DomainKeys& keys);

}  // namespace samepage::imagestore
