#pragma once

#include <cstddef>
#include <cstdint>

#include "core/mutex.h"

namespace samepage::migrator {

/// Tells whether it is worth looking pages up: not while nearly none of the last ones was known to
/// the target. Then only one batch in kProbeEvery is looked at, until that finds some again.
/// Threads: every method may be called from any thread.
class HitWatch {
 public:
  static constexpr std::uint64_t kPagesMin = 2048;  ///< To judge by: 8 MiB.
  static constexpr std::uint64_t kPagesPerHit = 100;
  static constexpr std::uint64_t kProbeEvery = 16;

  /// Whether to look up the next batch's pages.
  bool look() {
    const MutexLock lock(mutex_);
    return !rare_ || ++skipped_ % kProbeEvery == 0;
  }

  /// Nearly none of the last ones was known.
  bool is_rare() const {
    const MutexLock lock(mutex_);
    return rare_;
  }

  /// Of a batch that was looked up: its pages, and those that the target had.
  void saw(std::uint64_t pages, std::uint64_t hits) {
    const MutexLock lock(mutex_);
    pages_ += pages;
    hits_ += hits;
    if (pages_ >= kPagesMin || rare_) rare_ = hits_ * kPagesPerHit < pages_;
    if (pages_ < 2 * kPagesMin) return;
    pages_ /= 2;
    hits_ /= 2;
  }

 private:
  mutable Mutex mutex_;
  std::uint64_t pages_ GUARDED_BY(mutex_) = 0;
  std::uint64_t hits_ GUARDED_BY(mutex_) = 0;
  std::uint64_t skipped_ GUARDED_BY(mutex_) = 0;
  bool rare_ GUARDED_BY(mutex_) = false;
};

}  // namespace samepage::migrator
