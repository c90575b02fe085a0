#pragma once

#include <cstdint>
#include <vector>

#include "imagestore/overlay_log.h"

namespace samepage::imagestore {

// What an overlay's map holds of a page: its PageState in the lowest bits, and these.
inline constexpr std::uint8_t kStateMask = 3;
inline constexpr std::uint8_t kCommitted = 4;  ///< committed() has it;
inline constexpr std::uint8_t kFrozen = 8;  ///< a commit will have it, as it is or as it was saved;
inline constexpr std::uint8_t kHandedOut =
    16;                                    ///< a commit has it, and it has not been written since;
inline constexpr std::uint8_t kSent = 32;  ///< so has a copy on another host;
inline constexpr std::uint8_t kUnlogged = 128;  ///< the log has another state.

inline PageState state_of(std::uint8_t byte) {
  return static_cast<PageState>(byte & kStateMask);
}

inline std::uint8_t byte_of(PageState state) {
  return static_cast<std::uint8_t>(state);
}

/// Adds a page to runs that end before it.
inline void append_page(std::vector<StateRun>& runs, std::uint64_t page, PageState state) {
  const bool follows = !runs.empty() && runs.back().first + runs.back().count == page;
  if (follows && runs.back().state == state) {
    ++runs.back().count;
  } else {
    runs.push_back({.first = page, .count = 1, .state = state});
  }
}

}  // namespace samepage::imagestore
