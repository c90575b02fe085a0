#include "migrator/stream_history.h"

#include <algorithm>
#include <utility>

namespace samepage::migrator {

void StreamHistory::add(StreamBytes stretch) {
  const MutexLock lock(mutex_);
  const std::uint64_t begin = end_;
  end_ += stretch.bytes.size();
  stretches_.push_back({.begin = begin, .bytes = std::move(stretch)});
  forget(begin);
  grown_.notify_all();
}

void StreamHistory::skip(std::size_t bytes) {
  const MutexLock lock(mutex_);
  forget(std::exchange(end_, end_ + bytes));
  grown_.notify_all();
}

/// What is out of the reach of a batch that begins there.
void StreamHistory::forget(std::uint64_t begin) {
  const auto end = [](const Stretch& stretch) {
    return stretch.begin + stretch.bytes.bytes.size();
  };
  while (!stretches_.empty() && end(stretches_.front()) + reach_ < begin) stretches_.pop_front();
}

std::optional<StreamBytes> StreamHistory::find(std::uint64_t place) {
  const MutexLock lock(mutex_);
  while (!closed_ && (end_ < kPageSize || place > end_ - kPageSize)) grown_.wait(mutex_);
  if (closed_) return std::nullopt;
  const auto behind = std::ranges::upper_bound(stretches_, place, {}, &Stretch::begin);
  if (behind == stretches_.begin()) return std::nullopt;
  const Stretch& stretch = *std::prev(behind);
  const std::uint64_t offset = place - stretch.begin;
  if (stretch.bytes.bytes.size() < kPageSize || offset > stretch.bytes.bytes.size() - kPageSize) {
    return std::nullopt;
  }
  return StreamBytes{.slab = stretch.bytes.slab,
                     .bytes = stretch.bytes.bytes.subspan(offset, kPageSize)};
}

void StreamHistory::close() {
  const MutexLock lock(mutex_);
  closed_ = true;
  grown_.notify_all();
}

}  // namespace samepage::migrator
