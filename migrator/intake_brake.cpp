#include "migrator/intake_brake.h"

#include <algorithm>
#include <ranges>
#include <utility>

namespace samepage::migrator {
namespace {

using std::chrono::steady_clock;

/// For so many spans QEMU counts.
constexpr std::int64_t kCountSpans = 2;
/// So long is what it may believe remembered.
constexpr std::int64_t kSpansKept = 10;

std::int64_t span_of(steady_clock::time_point time) {
  return time.time_since_epoch() / IntakeBrake::kSpan;
}

}  // namespace

void IntakeBrake::press() {
  const MutexLock lock(mutex_);
  if (state_ == State::kUnused) state_ = State::kPressed;
}

void IntakeBrake::ease() {
  const MutexLock lock(mutex_);
  if (state_ == State::kPressed) state_ = State::kBounding;
  changed_.notify_all();
}

bool IntakeBrake::is_used() const {
  const MutexLock lock(mutex_);
  return state_ != State::kUnused;
}

void IntakeBrake::release() {
  const MutexLock lock(mutex_);
  if (state_ != State::kGone) state_ = State::kReleased;
  changed_.notify_all();
}

void IntakeBrake::delivered(std::uint64_t bytes, std::uint64_t link_bytes) {
  const MutexLock lock(mutex_);
  delivered_ += bytes;
  add(bytes, taken_in_);
  const auto fastest = std::ranges::max(taken_in_ | std::views::values);
  const auto at_once = static_cast<std::uint64_t>(kTakenShare * static_cast<double>(fastest));
  bound_ = std::max(kUnderWayBytes, std::min(link_bytes, at_once));
  changed_.notify_all();
}

bool IntakeBrake::is_drained() const {
  const MutexLock lock(mutex_);
  return state_ == State::kReleased || state_ == State::kGone || is_within_bound();
}

bool IntakeBrake::is_within_bound() const {
  return read_ <= delivered_ || read_ - delivered_ <= bound_;
}

double IntakeBrake::believed_speed_max() const {
  const std::int64_t now = span_of(steady_clock::now());
  const MutexLock lock(mutex_);
  const auto bytes_in = [&](std::int64_t span) REQUIRES(mutex_) {
    const auto found = read_in_.find(span);
    return found == read_in_.end() ? 0.0 : static_cast<double>(found->second);
  };
  double spans_fastest = 0;
  for (std::int64_t end = now; end >= now - kCountSpans; --end) {
    double bytes = bytes_in(end);
    for (std::int64_t spans = 1; spans < kSpansKept; ++spans) {
      bytes += bytes_in(end - spans);
      if (spans >= kCountSpans) {
        spans_fastest = std::max(spans_fastest, bytes / static_cast<double>(spans));
      }
    }
  }
  return spans_fastest / std::chrono::duration<double>(kSpan).count();
}

void IntakeBrake::pause(std::chrono::milliseconds time) {
  const MutexLock lock(mutex_);
  paused_until_ = std::max(paused_until_, steady_clock::now() + time);
}

void IntakeBrake::give_way() {
  const MutexLock lock(mutex_);
  state_ = State::kGone;
  changed_.notify_all();
}

Deadline IntakeBrake::turn() const {
  if (state_ == State::kGone) return Deadline::min();
  const bool is_held =
      state_ == State::kPressed || (state_ == State::kBounding && !is_within_bound());
  return is_held ? Deadline::max() : paused_until_;
}

bool IntakeBrake::wait(Deadline deadline) {
  const MutexLock lock(mutex_);
  while (steady_clock::now() < turn()) {
    if (steady_clock::now() >= deadline) return false;
    changed_.wait_until(mutex_, std::min(turn(), deadline));
  }
  return true;
}

void IntakeBrake::took(std::size_t bytes) {
  const MutexLock lock(mutex_);
  read_ += bytes;
  add(bytes, read_in_);
}

void IntakeBrake::add(std::uint64_t bytes, SpanBytes& span_bytes) {
  const std::int64_t span = span_of(steady_clock::now());
  span_bytes[span] += bytes;
  span_bytes.erase(span_bytes.begin(), span_bytes.lower_bound(span - kSpansKept));
}

BrakedStream::BrakedStream(std::unique_ptr<ByteStream> stream, IntakeBrake& brake)
    : stream_(std::move(stream)), brake_(brake) {}

Result<std::size_t> BrakedStream::read_some(std::span<std::byte> buffer, Deadline deadline) {
  if (!brake_.wait(deadline)) return fail(Errc::kTimedOut, "QEMU is being held back");
  const std::size_t read = TRY(stream_->read_some(buffer, deadline));
  brake_.took(read);
  return read;
}

Result<void> BrakedStream::write_all(std::span<const std::byte> bytes, Deadline deadline) {
  return stream_->write_all(bytes, deadline);
}

Result<void> BrakedStream::finish_writing() {
  return stream_->finish_writing();
}

void BrakedStream::shut_down() {
  brake_.give_way();
  stream_->shut_down();
}

}  // namespace samepage::migrator
