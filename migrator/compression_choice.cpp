#include "migrator/compression_choice.h"

#include <algorithm>

namespace samepage::migrator {
namespace {

constexpr std::size_t kTellingBytes = 16U << 10U;
constexpr std::size_t kFruitlessMax = 4;

}  // namespace

int CompressionChoice::level() {
  const MutexLock lock(mutex_);
  if (skip_ == 0) return levels_[step_];
  --skip_;
  return kPackNothing;
}

bool CompressionChoice::is_off() const {
  const MutexLock lock(mutex_);
  return step_ == 0;
}

void CompressionChoice::saw(const Batch& batch, Time now) {
  const MutexLock lock(mutex_);
  if (batch.literal_bytes < kTellingBytes) return;
  if (batch.level != kPackNothing) {
    fruitless_ = batch.paid ? 0 : std::min<std::size_t>(fruitless_ + 1, kFruitlessMax);
    skip_ = (std::size_t{1} << fruitless_) - 1;
  }
  step_ == 0 ? judge_none(batch, now) : judge_level(batch, now);
}

/// The first only says when the others began.
void CompressionChoice::Run::add(std::size_t more, Time now) {
  if (began == Time{}) {
    began = now;
  } else {
    bytes += more;
  }
}

double CompressionChoice::Run::rate(Time now) const {
  const std::chrono::duration<double> time = now - began;
  return static_cast<double>(bytes) / std::max(time.count(), 1e-9);
}

void CompressionChoice::judge_level(const Batch& batch, Time now) {
  if (batch.encoders_late == batch.link_late) {
    run_ = {};
    return;
  }
  if (batch.encoders_late != encoders_late_) run_ = {};
  encoders_late_ = batch.encoders_late;
  run_.add(batch.literal_bytes, now);
  const bool gives_up = encoders_late_ && step_ == 1;
  if (run_.bytes < (gives_up ? trial_after_ : kPatience)) return;
  if (gives_up && !batch.little_found) {
    run_ = {};
    return;
  }
  if (gives_up) packed_rate_ = run_.rate(now);
  if (encoders_late_) return step_to(step_ - 1);
  step_to(std::min(step_ + 1, levels_.size() - 1));
}

// Batches that were on their way when the trial began do not count.
void CompressionChoice::judge_none(const Batch& batch, Time now) {
  if (batch.level != kPackNothing) return;
  run_.add(batch.literal_bytes, now);
  if (run_.bytes < kTrialBytes) return;
  if (run_.rate(now) < packed_rate_) {
    trial_after_ = kLongPatience;
    return step_to(1);
  }
  run_ = {};
}

void CompressionChoice::step_to(std::size_t step) {
  step_ = step;
  run_ = {};
}

}  // namespace samepage::migrator
