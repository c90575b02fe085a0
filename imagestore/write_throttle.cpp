#include "imagestore/write_throttle.h"

#include <algorithm>

namespace samepage::imagestore {

using std::chrono::steady_clock;

void WriteThrottle::limit(std::uint64_t bytes_per_s) {
  const MutexLock lock(mutex_);
  bytes_per_s_ = bytes_per_s;
  is_limited_ = bytes_per_s != 0;
  free_at_ = steady_clock::now();
  changed_.notify_all();
}

void WriteThrottle::wrote(std::uint64_t bytes) {
  if (!is_limited_) return;
  const MutexLock lock(mutex_);
  if (bytes_per_s_ == 0) return;
  const auto now = steady_clock::now();
  const std::chrono::duration<double> takes(static_cast<double>(bytes) /
                                            static_cast<double>(bytes_per_s_));
  free_at_ =
      std::min(std::max(free_at_, now) + std::chrono::duration_cast<steady_clock::duration>(takes),
               now + kWaitMax);
  const auto until = free_at_;
  while (bytes_per_s_ != 0 && steady_clock::now() < until) changed_.wait_until(mutex_, until);
}

}  // namespace samepage::imagestore
