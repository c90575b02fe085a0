#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <memory>
#include <string>

#include "core/bus.h"
#include "core/fd.h"
#include "core/mutex.h"
#include "core/result.h"

namespace samepage {

/// One message on its way to the thread that owns the socket.
struct BusOutgoing {
  std::string host;           ///< Empty at an agent's end: there is one peer.
  std::string bytes;          ///< An encoded Envelope.
  std::uint64_t request = 0;  ///< Our own request's id, to be failed when it cannot be sent.
};

/// A bounded queue that many threads post to and one thread, which polls descriptor(), empties.
/// Internal to the bus. Threads: any.
class BusOutbox {
 public:
  /// kIo: the system has no descriptor left.
  static Result<std::shared_ptr<BusOutbox>> create(const BusLimits& limits);
  explicit BusOutbox(const BusLimits& limits, Fd wake) : limits_(limits), wake_(std::move(wake)) {}

  /// kUnavailable: the queue is full or closed. kInvalid: the message is too large.
  Result<void> post(BusOutgoing message);

  /// All that was posted; the descriptor is quiet afterwards.
  std::deque<BusOutgoing> take();

  /// Wakes the reader without a message.
  void nudge() const;

  /// Wakes the reader and refuses whatever comes later.
  void close();
  bool closed() const;

  int descriptor() const { return wake_.get(); }

 private:
  const BusLimits limits_;
  const Fd wake_;
  mutable Mutex mutex_;
  std::deque<BusOutgoing> messages_ GUARDED_BY(mutex_);
  std::size_t bytes_ GUARDED_BY(mutex_) = 0;
  bool closed_ GUARDED_BY(mutex_) = false;
};

}  // namespace samepage
