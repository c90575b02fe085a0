#pragma once

#include <chrono>

namespace samepage {

/// Every wait ends at an absolute point of the monotonic clock.
using Deadline = std::chrono::steady_clock::time_point;

/// Where time comes from. SystemClock in programs, fakes in tests/fakes/.
/// Threads: every method may be called from any thread.
class Clock {
 public:
  virtual ~Clock() = default;

  virtual std::chrono::steady_clock::time_point now() const = 0;

  /// Wall-clock time for people and for the journal.
  virtual std::chrono::system_clock::time_point today() const = 0;
};

class SystemClock final : public Clock {
 public:
  std::chrono::steady_clock::time_point now() const override {
    return std::chrono::steady_clock::now();
  }
  std::chrono::system_clock::time_point today() const override {
    return std::chrono::system_clock::now();
  }
};

}  // namespace samepage
