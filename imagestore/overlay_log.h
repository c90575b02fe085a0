#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "core/result.h"
#include "imagestore/manifest_node.h"

namespace samepage::imagestore {

/// What a page of a disk is, as its overlay knows it.
enum class PageState : std::uint8_t {
  kBase = 0,     ///< As in the version that the disk stands on.
  kWritten = 1,  ///< In the overlay's data.
  kZero = 2,     ///< Zeros, by a write or a discard.
};

/// Pages that follow each other, in one state.
struct StateRun {
  std::uint64_t first = 0;
  std::uint64_t count = 0;
  PageState state = PageState::kBase;

  friend bool operator==(const StateRun&, const StateRun&) = default;
};

/// What an overlay is of; never changes.
struct OverlayRoot {
  VersionId base;                ///< What pages that are not in the overlay are read from.
  std::uint64_t size_bytes = 0;  ///< Of the disk: at least the base's.

  std::uint64_t pages() const { return pages_in(size_bytes); }
};

/// One record of an overlay's log: changes that took effect together.
struct OverlayRecord {
  VersionId committed;         ///< The version that the last commit made; the base before.
  std::vector<StateRun> runs;  ///< Ascending, without overlaps.
};

// The log of an overlay's page states (docs/formats/overlay.md): a header, then records that are
// only appended. Pure; each reader takes untrusted bytes.

inline constexpr std::size_t kOverlayHeaderBytes = 64;
inline constexpr std::size_t kOverlayRecordRunsMax = 65'536;

std::vector<std::byte> encode_overlay_header(const OverlayRoot& root);

/// kCorrupt: no header, or damaged. kInvalid: of a newer release.
Result<OverlayRoot> decode_overlay_header(std::span<const std::byte> bytes);

std::vector<std::byte> encode_overlay_record(const OverlayRecord& record);

struct DecodedRecord {
  OverlayRecord record;
  std::size_t bytes = 0;  ///< That it took.
};

/// The record that `bytes` begin with. kCorrupt: none, or torn, damaged, or with pages at or beyond
/// `pages`.
Result<DecodedRecord> decode_overlay_record(std::span<const std::byte> bytes, std::uint64_t pages);

}  // namespace samepage::imagestore
