#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "core/page.h"
#include "core/result.h"
#include "imagestore/overlay_log.h"

namespace samepage::imagestore {

/// Pages of a disk on their way to another host (docs/formats/overlay.md, "Parcels").
struct PageParcel {
  std::vector<StateRun> runs;    ///< Ascending, without overlaps, kWritten or kZero.
  std::vector<std::byte> bytes;  ///< Of the pages that are kWritten, one after the other.
};

/// With data, in one parcel: what fits into a message of a disk's control socket.
inline constexpr std::size_t kParcelPagesMax = 24;
inline constexpr std::size_t kParcelRunsMax = 1'024;
inline constexpr std::size_t kParcelBytesMax = kParcelPagesMax * kPageSize + (16U << 10U);

// Pure.

/// Compressed where that makes it smaller.
std::vector<std::byte> encode_parcel(const PageParcel& parcel);

/// Takes untrusted bytes. kCorrupt: no parcel, damaged, larger than one may be, or with pages at or
/// beyond `pages`.
Result<PageParcel> decode_parcel(std::span<const std::byte> bytes, std::uint64_t pages);

}  // namespace samepage::imagestore
