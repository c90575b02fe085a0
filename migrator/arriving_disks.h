#pragma once

#include <chrono>
#include <functional>
#include <list>
#include <memory>

#include "core/mutex.h"
#include "core/result.h"
#include "migrator/byte_stream.h"
#include "migrator/moving_disk.h"

namespace samepage::migrator {

/// The disks that come with a VM, at the target: makes what is offered, and takes what comes.
///
/// Threads: every method may be called from any thread; each disk has one of its own.
/// Lifetime: what the callbacks use outlives it; destroying it stops it and waits.
class ArrivingDisks final {
 public:
  /// `on_failure` is told, from a thread of this object's, when a disk cannot come or go on; its
  /// source is told first. An empty `expect`: this host keeps no disks.
  ArrivingDisks(ExpectDisk expect, Deadline deadline, std::function<void(Error)> on_failure);
  ~ArrivingDisks();
  ArrivingDisks(const ArrivingDisks&) = delete;
  ArrivingDisks& operator=(const ArrivingDisks&) = delete;

  /// Serves a further kDisk channel.
  void add(std::unique_ptr<ByteStream> stream);

  /// Every disk that was offered is here whole, or there was none.
  bool have_arrived() const;

  /// Breaks every channel, for good.
  void stop();

  /// The same, waits for the threads, and lets go of the disks.
  void finish();

 private:
  class Receiver;

  const ExpectDisk expect_;
  const Deadline deadline_;
  const std::function<void(Error)> on_failure_;
  mutable Mutex mutex_;
  bool stopped_ GUARDED_BY(mutex_) = false;
  std::list<std::unique_ptr<Receiver>> receivers_ GUARDED_BY(mutex_);
};

}  // namespace samepage::migrator
