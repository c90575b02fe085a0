#pragma once

#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <optional>
#include <utility>

#include "core/mutex.h"

namespace samepage::migrator {

/// A stage of a pipeline that several workers share: jobs go in in order, are done in parallel, and
/// come out in the order in which they went in. At most `jobs_max` are in it, so a slow stage
/// behind makes the one before wait. Waits have no deadline of their own: whoever ends the pipeline
/// closes its stages. Threads: every method may be called from any thread; push() from one, pop()
/// from one.
template <class Job, class Done>
class OrderedStage final {
 public:
  struct Ticket {
    std::uint64_t number = 0;
    Job job;
  };

  explicit OrderedStage(std::size_t jobs_max) : jobs_max_(jobs_max) {}

  /// False: the stage is closed, and `job` is dropped.
  bool push(Job job) {
    const MutexLock lock(mutex_);
    while (!closed_ && entries_.size() >= jobs_max_) changed_.wait(mutex_);
    if (closed_) return false;
    entries_.push_back({.job = std::move(job), .is_done = false, .done = {}});
    changed_.notify_all();
    return true;
  }

  /// For a worker: the oldest job that nobody has taken. Nothing once there will be none.
  std::optional<Ticket> take() {
    const MutexLock lock(mutex_);
    while (!closed_ && !input_ended_ && taken_ == first_ + entries_.size()) changed_.wait(mutex_);
    if (closed_ || taken_ == first_ + entries_.size()) return std::nullopt;
    const std::uint64_t number = taken_++;
    return Ticket{.number = number, .job = std::move(entries_[number - first_].job)};
  }

  void finish(std::uint64_t number, Done done) {
    const MutexLock lock(mutex_);
    if (closed_) return;
    entries_[number - first_].done = std::move(done);
    entries_[number - first_].is_done = true;
    changed_.notify_all();
  }

  /// What became of the oldest job. Nothing once there will be none.
  std::optional<Done> pop() {
    const MutexLock lock(mutex_);
    while (!closed_ && !(entries_.empty() && input_ended_) && !front_is_done()) {
      changed_.wait(mutex_);
    }
    if (closed_ || entries_.empty()) return std::nullopt;
    std::optional<Done> done(std::move(entries_.front().done));
    entries_.pop_front();
    ++first_;
    changed_.notify_all();
    return done;
  }

  struct Load {
    std::size_t waiting = 0;  ///< Jobs that no worker has taken.
    std::size_t done = 0;     ///< At the front, not popped yet.
  };
  Load load() const {
    const MutexLock lock(mutex_);
    Load load{.waiting = static_cast<std::size_t>(first_ + entries_.size() - taken_), .done = 0};
    while (load.done < entries_.size() && entries_[load.done].is_done) ++load.done;
    return load;
  }

  /// No more jobs will be pushed; those inside still come out.
  void end_input() {
    const MutexLock lock(mutex_);
    input_ended_ = true;
    changed_.notify_all();
  }

  /// Drops everything; every later and waiting call returns at once.
  void close() {
    const MutexLock lock(mutex_);
    closed_ = true;
    changed_.notify_all();
  }

 private:
  struct Entry {
    Job job;
    bool is_done = false;
    Done done;
  };

  bool front_is_done() const REQUIRES(mutex_) {
    return !entries_.empty() && entries_.front().is_done;
  }

  const std::size_t jobs_max_;
  mutable Mutex mutex_;
  std::condition_variable_any changed_;
  std::deque<Entry> entries_ GUARDED_BY(mutex_);
  std::uint64_t first_ GUARDED_BY(mutex_) = 0;  ///< The number of the front entry.
  std::uint64_t taken_ GUARDED_BY(mutex_) = 0;  ///< The number of the next job for a worker.
  bool input_ended_ GUARDED_BY(mutex_) = false;
  bool closed_ GUARDED_BY(mutex_) = false;
};

}  // namespace samepage::migrator
