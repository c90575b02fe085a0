#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "core/mutex.h"
#include "migrator/byte_stream.h"

namespace samepage::migrator {

/// What a connection between the two agents of a session is for. The source names it first thing.
enum class Channel : std::uint8_t {
  kSignal = 1,   ///< Signals between the agents; one per session.
  kData = 2,     ///< The relay; one per session.
  kControl = 3,  ///< One forwarded libvirt connection.
  kMore = 4,     ///< The relay of a further connection of QEMU's, after kData; kStreamsMax at most.
  kDisk = 5,     ///< A disk that moves with the VM; kMovingDisksMax at most.
};

/// Errors: those of the stream.
Result<void> send_channel(ByteStream& stream, Channel channel, Deadline deadline);

/// kCorrupt: what came names no channel. Else the errors of the stream.
Result<Channel> receive_channel(ByteStream& stream, Deadline deadline);

enum class SignalKind : std::uint8_t {
  // Target to source.
  kReady = 1,    ///< The channel works.
  kResumed = 2,  ///< The guest runs here, or is paused as its owner had it.
  kRefused = 3,  ///< This side cannot go on, or cannot run the guest. `text` says why.
  kCleared = 4,  ///< After kAborted: no copy is left here.
  // Source to target.
  kRelease = 5,  ///< The source has let go of the guest.
  kAborted = 6,  ///< The source keeps the guest. `text` says why.
};

struct Signal {
  SignalKind kind = SignalKind::kReady;
  bool resume = true;  ///< Of kRelease: false when the guest's owner had paused it.
  std::string text;
};

/// The kSignal channel of a session.
/// Threads: receive() from one thread, the rest from any.
class SignalLink final {
 public:
  explicit SignalLink(std::unique_ptr<ByteStream> stream) : stream_(std::move(stream)) {}

  /// Long texts are cut. Errors: those of the stream.
  Result<void> send(const Signal& signal, Deadline deadline);

  /// kCorrupt: what came is no signal. kUnavailable: also the peer's orderly end.
  Result<Signal> receive(Deadline deadline);

  /// Hands signals to `hear` until it fails or none comes any more, and says which.
  Error receive_all(Deadline deadline, const std::function<Result<void>(const Signal&)>& hear);

  /// Says farewell, so that the peer knows that nothing was cut off.
  void finish() { static_cast<void>(stream_->finish_writing()); }
  void shut_down() { stream_->shut_down(); }

 private:
  const std::unique_ptr<ByteStream> stream_;
  Mutex send_mutex_;
};

}  // namespace samepage::migrator
