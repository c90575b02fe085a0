#pragma once

#include <functional>
#include <memory>
#include <thread>

#include "core/mutex.h"
#include "migrator/relay_half.h"

namespace samepage::migrator {

/// Opens one of a relay's two connections, when it is time for it.
using OpenStream = std::function<Result<std::unique_ptr<ByteStream>>()>;

struct StreamCarrierParts {
  OpenStream open_qemu;  ///< Called first, and the peer only when it succeeded.
  OpenStream open_peer;
  MakeRelay make_relay;
  std::function<void(Result<void>)> on_end;  ///< Called once; success when all was delivered.
};

/// Carries QEMU's stream of one migration through a relay: opens both of its connections and runs
/// it, in a thread of its own.
/// Threads: every method may be called from any thread. Lifetime: what the callbacks use outlives
/// it; destroying it stops it and waits for its thread, so open_qemu and open_peer must end by
/// themselves.
class StreamCarrier final {
 public:
  explicit StreamCarrier(StreamCarrierParts parts);
  ~StreamCarrier();
  StreamCarrier(const StreamCarrier&) = delete;
  StreamCarrier& operator=(const StreamCarrier&) = delete;

  /// Breaks both connections, or keeps them from coming about.
  void stop();

  bool delivered() const;
  RelayCounters counters() const;

 private:
  Result<void> carry();

  const StreamCarrierParts parts_;
  mutable Mutex mutex_;
  std::unique_ptr<ByteStream> qemu_ GUARDED_BY(mutex_);
  std::unique_ptr<ByteStream> peer_ GUARDED_BY(mutex_);
  std::unique_ptr<RelayHalf> relay_ GUARDED_BY(mutex_);  // Set once, then stays.
  bool stopped_ GUARDED_BY(mutex_) = false;
  std::jthread thread_;
};

}  // namespace samepage::migrator
