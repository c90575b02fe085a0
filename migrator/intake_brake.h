#pragma once

#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>

#include "core/mutex.h"
#include "migrator/byte_stream.h"

namespace samepage::migrator {

/// Bounds how much may have been read of QEMU's connections and not be delivered to the target's
/// QEMU: that would be downtime, were the guest stopped now, and QEMU takes it for delivered. A
/// link that needs more under way to be busy may have it, as far as the target's QEMU takes that at
/// once.
///
/// Threads: every method may be called from any thread.
class IntakeBrake final {
 public:
  /// The least bound, of all connections together.
  static constexpr std::uint64_t kUnderWayBytes = 4U << 20U;
  /// Of what the target's QEMU has taken in its fastest kSpan lately: the bound that no link
  /// exceeds.
  static constexpr double kTakenShare = 0.25;

  /// From now on nothing is read, until ease(). Does nothing after release().
  void press();
  /// From now on the bound holds. Does nothing unless it was pressed.
  void ease();
  /// From now on nothing is held back, but by pause().
  void release();

  /// Whether it was pressed, or cannot be any more.
  bool is_used() const;

  /// The target's QEMU has taken so many bytes more of what was read, and the link needs so many to
  /// be under way.
  void delivered(std::uint64_t bytes, std::uint64_t link_bytes);

  /// Whether what is under way is within the bound, pressed or not, or will not be bounded.
  bool is_drained() const;

  /// The fastest that QEMU may believe its pages to go. It counts for 100 ms, or until it can write
  /// again when it could not at their end, and believes what it has counted last.
  double believed_speed_max() const;
  static constexpr std::chrono::milliseconds kSpan{50};

  /// Before a further pass over the memory is read: nothing is, for so long, pressed or not. An
  /// emulated guest's dirty log needs it (docs/architecture.md, "What only the lab has").
  void pause(std::chrono::milliseconds time);

  /// Once the guest has stopped, nothing slows it down any more: for good.
  void give_way();

  /// Waits until something may be read. False: not by the deadline.
  bool wait(Deadline deadline);

  /// So many bytes were read.
  void took(std::size_t bytes);

 private:
  enum class State : std::uint8_t { kUnused, kPressed, kBounding, kReleased, kGone };

  bool is_within_bound() const REQUIRES(mutex_);
  Deadline turn() const REQUIRES(mutex_);

  mutable Mutex mutex_;
  std::condition_variable_any changed_;
  State state_ GUARDED_BY(mutex_) = State::kUnused;
  Deadline paused_until_ GUARDED_BY(mutex_) = Deadline::min();
  std::uint64_t read_ GUARDED_BY(mutex_) = 0;
  std::uint64_t delivered_ GUARDED_BY(mutex_) = 0;
  std::uint64_t bound_ GUARDED_BY(mutex_) = kUnderWayBytes;

  /// The latest, each by kSpan.
  using SpanBytes = std::map<std::int64_t, std::uint64_t>;
  static void add(std::uint64_t bytes, SpanBytes& span_bytes);
  SpanBytes read_in_ GUARDED_BY(mutex_);
  SpanBytes taken_in_ GUARDED_BY(mutex_);
};

/// A connection of QEMU's whose reader the brake stops, until any of them is shut down: then
/// nothing of the migration is worth waiting for. Threads: as ByteStream.
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
