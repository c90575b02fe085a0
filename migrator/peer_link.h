#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <span>

#include "core/mutex.h"
#include "core/result.h"
#include "migrator/byte_stream.h"
#include "migrator/relay_messages.h"
#include "migrator/stream_slab.h"

namespace samepage::migrator {

/// The connection of two relays as messages: a type, a length, a body of at most
/// body_bytes_max(type).
///
/// Threads: send() from any thread; receive() from one at a time.
/// Lifetime: the stream is borrowed and must outlive the link.
class PeerLink {
 public:
  explicit PeerLink(ByteStream& stream) : stream_(stream) {}

  /// Any error: the message may have been sent in part; give the connection up.
  Result<void> send(MessageType type, std::span<const std::byte> body, Deadline deadline) {
    return send(type, body, {}, deadline);
  }

  /// The same for a body in two parts; the second one is not copied.
  Result<void> send(MessageType type, std::span<const std::byte> head,
                    std::span<const std::byte> tail, Deadline deadline);

  struct Message {
    MessageType type = MessageType::kHello;
    StreamBytes memory;  ///< That the body lies in.
    std::span<const std::byte> body;
  };

  /// kUnavailable: the connection ended. kCorrupt: this is no message. kTimedOut: no whole message
  /// came; the connection cannot be used any more.
  Result<Message> receive(Deadline deadline);

  /// Both directions, whole messages.
  std::uint64_t bytes() const { return bytes_.load(std::memory_order_relaxed); }

 private:
  ByteStream& stream_;
  SlabPool slabs_;
  std::atomic<std::uint64_t> bytes_{0};
  Mutex sending_;
};

}  // namespace samepage::migrator
