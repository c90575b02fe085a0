#pragma once

#include <chrono>
#include <condition_variable>
#include <deque>
#include <mutex>
#include <optional>
#include <utility>

namespace samepage {

/// Hands what callbacks on other threads report to the test, which waits for it, not for time.
template <class T>
class Mailbox {
 public:
  void put(T value) {
    const std::lock_guard lock(mutex_);
    values_.push_back(std::move(value));
    arrived_.notify_all();
  }

  /// The oldest value; empty when none arrives within 20 seconds, which no working code needs.
  std::optional<T> take() {
    std::unique_lock lock(mutex_);
    const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(20);
    if (!arrived_.wait_until(lock, deadline, [&] { return !values_.empty(); })) return {};
    T value = std::move(values_.front());
    values_.pop_front();
    return value;
  }

  bool is_empty() const {
    const std::lock_guard lock(mutex_);
    return values_.empty();
  }

 private:
  mutable std::mutex mutex_;
  std::condition_variable arrived_;
  std::deque<T> values_;
};

}  // namespace samepage
