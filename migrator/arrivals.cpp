#include "migrator/arrivals.h"

#include <utility>

#include "core/check.h"
#include "migrator/relay.h"

namespace samepage::migrator {

using std::chrono::steady_clock;

Result<void> Arrivals::add(std::shared_ptr<Arrival> arrival) {
  const MutexLock lock(mutex_);
  if (entries_.size() == kBatchesInFlightMax) {
    return fail(Errc::kCorrupt, "too many batches at once");
  }
  CHECK(arrival->header.sequence == first_ + entries_.size());
  entries_.push_back({.arrival = std::move(arrival), .asked_at = {}});
  changed_.notify_all();
  return {};
}

std::shared_ptr<Arrival> Arrivals::take() {
  const MutexLock lock(mutex_);
  while (!closed_ && !input_ended_ && taken_ == entries_.size()) changed_.wait(mutex_);
  if (closed_ || taken_ == entries_.size()) return nullptr;
  Entry& next = entries_[taken_++];
  next.state = State::kTaken;
  return next.arrival;
}

Arrivals::Entry& Arrivals::entry(const Arrival& arrival) {
  const std::uint64_t number = arrival.header.sequence - first_;
  CHECK(number < entries_.size());
  return entries_[number];
}

void Arrivals::complete(const Arrival& arrival) {
  const MutexLock lock(mutex_);
  entry(arrival).state = State::kComplete;
  changed_.notify_all();
}

void Arrivals::ask(const Arrival& arrival) {
  const MutexLock lock(mutex_);
  entry(arrival).state = State::kAsked;
  entry(arrival).asked_at = steady_clock::now();
  changed_.notify_all();
}

Result<std::shared_ptr<Arrival>> Arrivals::asked(std::uint64_t sequence) {
  const MutexLock lock(mutex_);
  const std::uint64_t number = sequence - first_;
  if (number >= entries_.size() || entries_[number].state != State::kAsked) {
    return fail(Errc::kCorrupt, "pages for a batch that waits for none");
  }
  entries_[number].state = State::kTaken;
  return entries_[number].arrival;
}

Result<std::shared_ptr<Arrival>> Arrivals::pop(std::chrono::milliseconds stall_max) {
  const MutexLock lock(mutex_);
  for (;;) {
    if (closed_ || (entries_.empty() && input_ended_)) return std::shared_ptr<Arrival>();
    if (entries_.empty() || entries_.front().state != State::kAsked) {
      if (!entries_.empty() && entries_.front().state == State::kComplete) break;
      changed_.wait(mutex_);
      continue;
    }
    if (pages_ended_) return fail(Errc::kUnavailable, "the source left and owed pages");
    const Deadline deadline = entries_.front().asked_at + stall_max;
    if (steady_clock::now() >= deadline) {
      return fail(Errc::kTimedOut, "pages that were asked for did not come");
    }
    changed_.wait_until(mutex_, deadline);
  }
  std::shared_ptr<Arrival> front = std::move(entries_.front().arrival);
  entries_.pop_front();
  ++first_;
  --taken_;
  return front;
}

void Arrivals::end_input() {
  const MutexLock lock(mutex_);
  input_ended_ = true;
  changed_.notify_all();
}

void Arrivals::end_pages() {
  const MutexLock lock(mutex_);
  pages_ended_ = true;
  changed_.notify_all();
}

void Arrivals::close() {
  const MutexLock lock(mutex_);
  closed_ = true;
  changed_.notify_all();
}

}  // namespace samepage::migrator
