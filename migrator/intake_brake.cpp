#include "migrator/intake_brake.h"

#include <algorithm>
#include <utility>

namespace samepage::migrator {
namespace {

using std::chrono::steady_clock;

/// Small, so that QEMU does not wait long for a release.
constexpr std::size_t kPieceBytes = 16U << 10U;

}  // namespace

void IntakeBrake::press() {
  const MutexLock lock(mutex_);
  if (state_ == State::kUnused) state_ = State::kPressed;
}

bool IntakeBrake::is_used() const {
  const MutexLock lock(mutex_);
  return state_ != State::kUnused;
}

void IntakeBrake::release() {
  const MutexLock lock(mutex_);
  if (state_ != State::kGone) state_ = State::kReleased;
}

void IntakeBrake::pause(std::chrono::milliseconds time) {
  const MutexLock lock(mutex_);
  next_ = std::max(next_, steady_clock::now() + time);
}

void IntakeBrake::give_way() {
  const MutexLock lock(mutex_);
  state_ = State::kGone;
  changed_.notify_all();
}

std::size_t IntakeBrake::wait(std::size_t wanted, Deadline deadline) {
  const MutexLock lock(mutex_);
  const Deadline turn = next_;
  const Deadline until = std::min(turn, deadline);
  while (state_ != State::kGone && steady_clock::now() < until) changed_.wait_until(mutex_, until);
  if (state_ == State::kGone) return wanted;
  if (turn > deadline) return 0;
  return state_ == State::kPressed ? std::min(wanted, kPieceBytes) : wanted;
}

void IntakeBrake::took(std::size_t bytes) {
  const MutexLock lock(mutex_);
  if (state_ != State::kPressed) return;
  const std::chrono::duration<double> share(static_cast<double>(bytes) / kBytesPerSecond);
  next_ = std::max(next_, steady_clock::now()) +
          std::chrono::duration_cast<steady_clock::duration>(share);
}

BrakedStream::BrakedStream(std::unique_ptr<ByteStream> stream, IntakeBrake& brake)
    : stream_(std::move(stream)), brake_(brake) {}

Result<std::size_t> BrakedStream::read_some(std::span<std::byte> buffer, Deadline deadline) {
  const std::size_t size = brake_.wait(buffer.size(), deadline);
  if (size == 0) return fail(Errc::kTimedOut, "QEMU is being slowed down");
  const std::size_t read = TRY(stream_->read_some(buffer.first(size), deadline));
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
  stream_->shut_down();
}

}  // namespace samepage::migrator
