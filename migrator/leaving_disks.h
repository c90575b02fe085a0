#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "core/result.h"
#include "migrator/disk_channel.h"
#include "migrator/moving_disk.h"

namespace samepage::migrator {

/// The disks that a VM takes along, at the source: each is offered to the target, then sent in
/// rounds while the guest writes on, and a last time when it stands still.
///
/// Invariant: hand_over() succeeds only when the target has said of every disk that all that was
/// written to it until then is there to stay.
///
/// Threads: every method may be called from any thread; each disk is sent by one of its own.
class LeavingDisks final {
 public:
  struct Options {
    std::chrono::milliseconds answer_max{30'000};     ///< For the target to make a disk.
    std::chrono::milliseconds stall_max{30'000};      ///< For it to take a parcel or flush.
    std::chrono::milliseconds rest{100};              ///< Between two rounds.
    std::chrono::milliseconds hand_over_max{15'000};  ///< For the last one: the guest stands still.
    /// A round of less, or that took less, is followed by the guest's memory.
    std::uint64_t near_bytes = 1U << 20U;
    std::chrono::milliseconds near_time{150};
  };
  using Dial = std::function<Result<std::unique_ptr<ByteStream>>()>;

  /// `on_failure` is told, from a thread of this object's, when a disk cannot go on.
  LeavingDisks(const Options& options, std::vector<std::unique_ptr<LeavingDisk>> disks,
               std::function<void(Error)> on_failure);
  ~LeavingDisks();
  LeavingDisks(const LeavingDisks&) = delete;
  LeavingDisks& operator=(const LeavingDisks&) = delete;

  bool empty() const { return senders_.empty(); }

  /// Offers every disk over a channel of its own, and begins to send when all were taken. Any
  /// error: the target cannot have one, and nothing was sent.
  Result<void> begin(const Dial& dial);

  /// Waits until little of any disk is left to be sent. Errors: one cannot go on, or stop().
  Result<void> wait_until_near(Deadline deadline);

  /// The guest stands still or will soon: rounds follow each other without a rest.
  void hurry();

  /// The guest stands still, and nobody writes: sends the rest and waits until the target has it.
  Result<void> hand_over();

  /// Breaks every channel, for good.
  void stop();

  /// The same, waits for the threads, and lets go of the disks.
  void finish();

  struct Counters {
    std::uint64_t bytes = 0;  ///< Of the disks, before compression; what was written again, again.
    unsigned rounds = 0;      ///< Of the disk with the most.
  };
  Counters counters() const;

 private:
  class Sender;
  const std::chrono::milliseconds hand_over_max_;
  std::vector<std::unique_ptr<Sender>> senders_;
};

}  // namespace samepage::migrator
