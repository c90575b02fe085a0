#pragma once

#include <algorithm>
#include <chrono>
#include <cstddef>

#include "migrator/batch.h"

namespace samepage::migrator {

/// Sizes batches so that each takes about kBatchTime from QEMU to the link: a slow link gets small
/// ones, of which little waits when the guest has stopped; a fast one gets few. A pure function of
/// what it is told. Threads: one at a time.
class BatchPace {
 public:
  using Time = std::chrono::steady_clock::time_point;

  static constexpr std::size_t kBytesMin = 64U << 10U;
  static constexpr std::size_t kBytesFirst = 256U << 10U;
  static constexpr std::chrono::duration<double> kBatchTime{0.005};

  explicit BatchPace(Time now) : since_(now) {}

  /// So many bytes more of the stream have been passed on.
  void passed(std::size_t bytes, Time now) {
    bytes_ += static_cast<double>(bytes);
    const std::chrono::duration<double> time = now - since_;
    if (time < kLook) return;
    const double size = bytes_ / time.count() * kBatchTime.count();
    batch_bytes_ = std::clamp(static_cast<std::size_t>(size), kBytesMin, kBatchStreamBytesMax);
    since_ = now;
    bytes_ = 0;
  }

  std::size_t batch_bytes() const { return batch_bytes_; }

 private:
  static constexpr std::chrono::duration<double> kLook{0.02};

  Time since_;
  double bytes_ = 0;
  std::size_t batch_bytes_ = kBytesFirst;
};

}  // namespace samepage::migrator
