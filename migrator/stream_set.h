#pragma once

#include <cstddef>
#include <memory>
#include <vector>

#include "core/mutex.h"
#include "migrator/stream_carrier.h"

namespace samepage::migrator {

/// The streams of one migration, each through a relay of its own: QEMU's main connection first, and
/// those of its multifd.
/// Threads: every method may be called from any thread. Lifetime: as StreamCarrier's.
class StreamSet final {
 public:
  StreamSet() = default;
  ~StreamSet() { clear(); }
  StreamSet(const StreamSet&) = delete;
  StreamSet& operator=(const StreamSet&) = delete;

  /// Starts to carry a further stream. False, and nothing done, after stop() or when there are
  /// `streams_max` of them.
  bool add(StreamCarrierParts parts, std::size_t streams_max);

  /// Breaks every connection, for good.
  void stop();

  /// Every stream was verified and handed to the target's QEMU; false when there is none.
  bool delivered() const;

  /// Of all streams together.
  RelayCounters counters() const;

  /// Ends every stream and waits for their threads; the counters stay.
  void clear();

 private:
  mutable Mutex mutex_;
  bool stopped_ GUARDED_BY(mutex_) = false;
  std::vector<std::unique_ptr<StreamCarrier>> streams_ GUARDED_BY(mutex_);
  RelayCounters cleared_ GUARDED_BY(mutex_);
};

}  // namespace samepage::migrator
