#pragma once

#include <chrono>

#include "core/clock.h"
#include "core/mutex.h"

namespace samepage::fakes {

/// A clock that stands still until a test moves it. Starts at an hour of the monotonic clock and
/// at 2024-01-01T00:00:00Z of the wall clock; both move together.
class FakeClock final : public Clock {
 public:
  std::chrono::steady_clock::time_point now() const override {
    const MutexLock lock(mutex_);
    return std::chrono::steady_clock::time_point(std::chrono::hours(1)) + passed_;
  }

  std::chrono::system_clock::time_point today() const override {
    const MutexLock lock(mutex_);
    return std::chrono::system_clock::time_point(std::chrono::seconds(1704067200)) +
           std::chrono::duration_cast<std::chrono::system_clock::duration>(passed_);
  }

  void advance(std::chrono::steady_clock::duration by) {
    const MutexLock lock(mutex_);
    passed_ += by;
  }

 private:
  mutable Mutex mutex_;
  std::chrono::steady_clock::duration passed_ GUARDED_BY(mutex_){0};
};

}  // namespace samepage::fakes
