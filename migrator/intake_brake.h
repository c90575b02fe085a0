#pragma once

#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <memory>

#include "core/mutex.h"
#include "migrator/byte_stream.h"

namespace samepage::migrator {

/// Slows the reading of QEMU's connections down where that is better for the guest.
///
/// QEMU stops the guest once what is left would take less than the downtime limit at the speed of
/// the last 100 ms. While pages pass that the target has, that speed says nothing of the pages
/// left. So the first pass over the memory has a limit that is as good as none; at its end the
/// brake is on until QEMU has forgotten, and only then the limit is raised. It also keeps QEMU from
/// going round and round meanwhile. Where QEMU measures rightly it is not needed.
///
/// Threads: every method may be called from any thread.
class IntakeBrake final {
 public:
  /// Of all connections together: about what QEMU may then leave for the downtime, in a second.
  static constexpr std::size_t kBytesPerSecond = 4U << 20U;
  /// So long until QEMU has measured the slow speed: a whole one of its 100 ms, and the rest of the
  /// one before.
  static constexpr std::chrono::milliseconds kUntilForgotten{250};
  /// What is read meanwhile.
  static constexpr std::size_t kPressedBytes = kBytesPerSecond * kUntilForgotten.count() / 1000;

  /// Does nothing after release().
  void press();
  void release();

  /// Whether it was pressed, or cannot be any more.
  bool is_used() const;

  /// Before a further pass over the memory is read: nothing is, for so long, pressed or not. An
  /// emulated guest's dirty log needs it (docs/architecture.md, "What only the lab has").
  void pause(std::chrono::milliseconds time);

  /// Once the guest has stopped, nothing slows it down any more: for good.
  void give_way();

  /// How many of the `wanted` bytes may be read now, at least one; waits for its turn. 0: that
  /// would be after the deadline.
  std::size_t wait(std::size_t wanted, Deadline deadline);

  /// So many of them were read.
  void took(std::size_t bytes);

 private:
  enum class State : std::uint8_t { kUnused, kPressed, kReleased, kGone };

  mutable Mutex mutex_;
  std::condition_variable_any changed_;
  State state_ GUARDED_BY(mutex_) = State::kUnused;
  Deadline next_ GUARDED_BY(mutex_) = Deadline::min();
};

/// A connection of QEMU's whose reader the brake slows down. Threads: as ByteStream.
class BrakedStream final : public ByteStream {
 public:
  /// The brake is borrowed and outlives this.
  BrakedStream(std::unique_ptr<ByteStream> stream, IntakeBrake& brake);

  Result<std::size_t> read_some(std::span<std::byte> buffer, Deadline deadline) override;
  Result<void> write_all(std::span<const std::byte> bytes, Deadline deadline) override;
  Result<void> finish_writing() override;
  void shut_down() override;

 private:
  const std::unique_ptr<ByteStream> stream_;
  IntakeBrake& brake_;
};

}  // namespace samepage::migrator
