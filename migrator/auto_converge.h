#pragma once

#include <chrono>
#include <cstdint>
#include <optional>

namespace samepage::migrator {

/// How fast a guest may write to a disk that is sent in rounds while it writes. A round sends what
/// was written during the one before, so a writer that is faster than the link keeps rounds from
/// getting shorter. As QEMU's auto-converge does to vCPUs, this leaves such a writer half of what
/// the link carried, and half of that when it does not help.
///
/// Invariant: the limit never grows, and is never below kBytesPerSecondMin.
/// Threads: one at a time.
class AutoConverge final {
 public:
  static constexpr std::uint64_t kBytesPerSecondMin = 1U << 20U;
  /// Of the round before, that a round may be and still count as shorter.
  static constexpr double kShorter = 0.5;
  /// Rounds in a row that were not, before the guest is held.
  static constexpr unsigned kRoundsMax = 2;

  /// A round has sent so much in so long. The new limit in bytes a second, when there is one.
  std::optional<std::uint64_t> round_ended(std::uint64_t bytes, std::chrono::nanoseconds took);

 private:
  std::optional<std::uint64_t> last_bytes_;
  unsigned rounds_ = 0;
  std::optional<std::uint64_t> limit_;
};

}  // namespace samepage::migrator
