#pragma once

#include <algorithm>
#include <chrono>
#include <cstddef>

#include "core/mutex.h"
#include "migrator/batch.h"

namespace samepage::migrator {

/// Sizes batches so that each takes the link about kBatchTime: on a slow link they are small, so
/// that little waits when the guest has stopped; where they cost next to nothing they are large.
/// Threads: every method may be called from any thread.
class BatchPace {
 public:
  static constexpr std::size_t kBytesMin = 256U << 10U;
  static constexpr std::chrono::duration<double> kBatchTime{0.005};

  /// A batch for so many bytes of the stream took so many on the wire. `bytes_per_second`: the
  /// link's; 0: not known yet.
  void sent(std::size_t stream_bytes, std::size_t wire_bytes, double bytes_per_second) {
    const MutexLock lock(mutex_);
    stream_bytes_ = kMemory * stream_bytes_ + static_cast<double>(stream_bytes);
    wire_bytes_ = kMemory * wire_bytes_ + static_cast<double>(wire_bytes);
    const double size = bytes_per_second * kBatchTime.count() * stream_bytes_ / wire_bytes_;
    const bool known = bytes_per_second > 0 && size < static_cast<double>(kBatchStreamBytesMax);
    batch_bytes_ =
        known ? std::max(kBytesMin, static_cast<std::size_t>(size)) : kBatchStreamBytesMax;
  }

  std::size_t batch_bytes() const {
    const MutexLock lock(mutex_);
    return batch_bytes_;
  }

 private:
  static constexpr double kMemory = 0.75;

  mutable Mutex mutex_;
  double stream_bytes_ GUARDED_BY(mutex_) = 0;
  double wire_bytes_ GUARDED_BY(mutex_) = 0;
  std::size_t batch_bytes_ GUARDED_BY(mutex_) = kBatchStreamBytesMax;
};

}  // namespace samepage::migrator
