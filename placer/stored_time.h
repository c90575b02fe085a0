#pragma once

#include <chrono>
#include <cstdint>

namespace samepage::placer {

// Moments as the placer's SQLite file has them: microseconds since 1970 in UTC.

inline std::int64_t stored_time(std::chrono::system_clock::time_point at) {
  return std::chrono::duration_cast<std::chrono::microseconds>(at.time_since_epoch()).count();
}

inline std::chrono::system_clock::time_point time_of(std::int64_t stored) {
  return std::chrono::system_clock::time_point(
      std::chrono::duration_cast<std::chrono::system_clock::duration>(
          std::chrono::microseconds(stored)));
}

}  // namespace samepage::placer
