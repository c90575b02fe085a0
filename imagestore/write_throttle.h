#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>

#include "core/mutex.h"

namespace samepage::imagestore {

/// Holds those who write to a speed, while somebody wants it so.
///
/// Threads: every method may be called from any thread.
class WriteThrottle final {
 public:
  /// From now on; 0: as fast as they like, and who waits goes on at once.
  void limit(std::uint64_t bytes_per_s);

  /// Of who has written so much: returns when there was time for it and for what others wrote
  /// before, or after kWaitMax, so that no guest takes its disk for lost.
  void wrote(std::uint64_t bytes);

  static constexpr std::chrono::seconds kWaitMax{5};

 private:
  Mutex mutex_;
  std::condition_variable_any changed_;
  std::atomic<bool> is_limited_ = false;
  std::uint64_t bytes_per_s_ GUARDED_BY(mutex_) = 0;
  std::chrono::steady_clock::time_point free_at_ GUARDED_BY(mutex_);
};

}  // namespace samepage::imagestore
