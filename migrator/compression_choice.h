#pragma once

#include <array>
#include <chrono>
#include <cstddef>

#include "core/mutex.h"
#include "migrator/packed_bytes.h"

namespace samepage::migrator {

/// Chooses how hard to compress, so that compression never is what the migration waits for: harder
/// while batches wait for the link, less hard while stretches wait for their encoders. When they
/// still wait at the easiest level, sending everything as it is gets tried for a while, and goes on
/// if more comes through so than before: only that tells, whatever the link, the processors and the
/// target are busy with. Nothing is compressed while it does not pay, either.
/// A pure function of what it is told. Threads: every method may be called from any thread.
class CompressionChoice {
 public:
  using Time = std::chrono::steady_clock::time_point;

  /// Bytes of literals for which something is late all the time before the level changes: short
  /// jams are not worth that. And for which nothing is compressed before it is judged.
  static constexpr std::size_t kPatience = 4U << 20U;
  static constexpr std::size_t kTrialBytes = 8U << 20U;
  /// Before what was found slower is tried again.
  static constexpr std::size_t kLongPatience = 256U << 20U;

  /// `level_max`: the hardest, at least 1.
  explicit CompressionChoice(int level_max) : levels_{kPackNothing, -3, 1, level_max} {}

  /// For the next batch.
  int level();

  /// Compression is given up for now, because it took longer than it saved.
  bool is_off() const;

  struct Batch {
    int level = kPackNothing;
    std::size_t literal_bytes = 0;
    bool paid = false;           ///< Compressing it did.
    bool encoders_late = false;  ///< Stretches wait for encoders.
    bool link_late = false;      ///< Batches wait for the link.
    bool little_found = false;   ///< Compressing is what the encoders do, and not looking pages up.
  };
  void saw(const Batch& batch, Time now);

 private:
  struct Run {
    std::size_t bytes = 0;
    Time began{};

    void add(std::size_t more, Time now);
    double rate(Time now) const;
  };

  void judge_level(const Batch& batch, Time now) REQUIRES(mutex_);
  void judge_none(const Batch& batch, Time now) REQUIRES(mutex_);
  void step_to(std::size_t step) REQUIRES(mutex_);

  const std::array<int, 4> levels_;
  mutable Mutex mutex_;
  std::size_t step_ GUARDED_BY(mutex_) = 2;
  Run run_ GUARDED_BY(mutex_);  ///< Of batches for which the same is late, or of a trial.
  bool encoders_late_ GUARDED_BY(mutex_) = false;
  double packed_rate_ GUARDED_BY(mutex_) = 0;  ///< What came through before the trial.
  std::size_t trial_after_ GUARDED_BY(mutex_) = kPatience;
  std::size_t fruitless_ GUARDED_BY(mutex_) = 0;
  std::size_t skip_ GUARDED_BY(mutex_) = 0;
};

}  // namespace samepage::migrator
