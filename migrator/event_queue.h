#pragma once

#include <condition_variable>
#include <cstddef>
#include <deque>
#include <optional>
#include <utility>

#include "core/clock.h"
#include "core/mutex.h"

namespace samepage::migrator {

/// Carries events from many threads to the one that owns a session's state, in order.
/// Threads: push() from any thread, pop() from one.
template <class Event>
class EventQueue final {
 public:
  /// Never waits. A full queue drops the event: a session knows far fewer, so its peer floods it.
  void push(Event event) {
    const MutexLock lock(mutex_);
    if (events_.size() == kEventsMax) return;
    events_.push_back(std::move(event));
    changed_.notify_all();
  }

  /// The oldest event; nothing when none came before the deadline.
  std::optional<Event> pop(Deadline deadline) {
    const MutexLock lock(mutex_);
    while (events_.empty()) {
      if (changed_.wait_until(mutex_, deadline) == std::cv_status::timeout) break;
    }
    if (events_.empty()) return std::nullopt;
    std::optional<Event> event(std::move(events_.front()));
    events_.pop_front();
    changed_.notify_all();
    return event;
  }

 private:
  static constexpr std::size_t kEventsMax = 64;

  Mutex mutex_;
  std::condition_variable_any changed_;
  std::deque<Event> events_ GUARDED_BY(mutex_);
};

}  // namespace samepage::migrator
