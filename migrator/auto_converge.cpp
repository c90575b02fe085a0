#include "migrator/auto_converge.h"

#include <algorithm>
#include <utility>

namespace samepage::migrator {

std::optional<std::uint64_t> AutoConverge::round_ended(std::uint64_t bytes,
                                                       std::chrono::nanoseconds took) {
  const auto before = std::exchange(last_bytes_, bytes);
  const auto sent = static_cast<double>(bytes);
  if (!before || sent <= kShorter * static_cast<double>(*before)) {
    rounds_ = 0;
    return std::nullopt;
  }
  if (++rounds_ < kRoundsMax) return std::nullopt;
  rounds_ = 0;
  const double seconds = std::max(std::chrono::duration<double>(took).count(), 1e-3);
  const auto half_the_link = static_cast<std::uint64_t>(sent / seconds / 2);
  const std::uint64_t limit =
      std::max(kBytesPerSecondMin, limit_ ? std::min(half_the_link, *limit_ / 2) : half_the_link);
  if (limit_ == limit) return std::nullopt;
  limit_ = limit;
  return limit_;
}

}  // namespace samepage::migrator
