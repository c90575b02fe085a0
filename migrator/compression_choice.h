#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <utility>

#include "core/mutex.h"
#include "migrator/packed_bytes.h"

namespace samepage::migrator {

/// Chooses how hard to compress, so that compression never is what the migration waits for: harder
/// while batches wait for the link, less hard while stretches wait for their encoders. Nothing is
/// compressed while it does not pay, or after the encoders could not keep up for long.
/// Threads: every method may be called from any thread.
class CompressionChoice {
 public:
  /// `level_max`: the hardest, at least 1.
  explicit CompressionChoice(int level_max) : levels_{kPackNothing, -3, 1, level_max} {}

  /// For the next batch.
  int level() {
    const MutexLock lock(mutex_);
    if (skip_ == 0) return levels_[step_];
    --skip_;
    return kPackNothing;
  }

  struct Batch {
    int level = kPackNothing;
    std::size_t literal_bytes = 0;
    bool paid = false;           ///< Compressing it did.
    bool encoders_late = false;  ///< Stretches wait for encoders.
    bool link_late = false;      ///< Batches wait for the link.
  };
  void saw(const Batch& batch) {
    const MutexLock lock(mutex_);
    if (batch.literal_bytes < kTellingBytes) return;
    if (batch.level != kPackNothing) {
      fruitless_ = batch.paid ? 0 : std::min<std::size_t>(fruitless_ + 1, kFruitlessMax);
      skip_ = (std::size_t{1} << fruitless_) - 1;
    }
    judge(batch);
  }

 private:
  void judge(const Batch& batch) REQUIRES(mutex_) {
    const std::size_t early = std::exchange(late_bytes_, 0);
    if (batch.encoders_late == batch.link_late) return;
    late_bytes_ = (batch.encoders_late == encoders_late_ ? early : 0) + batch.literal_bytes;
    encoders_late_ = batch.encoders_late;
    const bool gives_up = encoders_late_ && step_ <= 1;
    if (late_bytes_ < (gives_up ? kLongPatience : kPatience)) return;
    late_bytes_ = 0;
    if (encoders_late_ && step_ > 0) --step_;
    if (!encoders_late_ && step_ + 1 < levels_.size()) ++step_;
  }

  // Bytes of literals for which something is late all the time before the level changes, and before
  // compression is given up: small guests and short jams are not worth that.
  static constexpr std::size_t kPatience = 4U << 20U;
  static constexpr std::size_t kLongPatience = 1U << 30U;
  static constexpr std::size_t kTellingBytes = 16U << 10U;
  static constexpr std::size_t kFruitlessMax = 4;

  const std::array<int, 4> levels_;
  Mutex mutex_;
  std::size_t step_ GUARDED_BY(mutex_) = 2;
  std::size_t late_bytes_ GUARDED_BY(mutex_) = 0;
  bool encoders_late_ GUARDED_BY(mutex_) = false;
  std::size_t fruitless_ GUARDED_BY(mutex_) = 0;
  std::size_t skip_ GUARDED_BY(mutex_) = 0;
};

}  // namespace samepage::migrator
