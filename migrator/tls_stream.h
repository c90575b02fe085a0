#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "core/fd.h"
#include "migrator/byte_stream.h"
#include "migrator/wire_counter.h"

namespace samepage::migrator {

/// The secret that two agents share for one session. It is never logged.
using PreSharedKey = std::array<std::byte, 32>;

/// Answers a client's claim to a session with that session's key, or nothing when there is none.
using FindKey = std::function<std::optional<PreSharedKey>(std::string_view session)>;

/// TLS 1.3 between two agents over TCP. Both sides prove that they hold the session's pre-shared
/// key; there are no certificates, and a fresh Diffie-Hellman exchange keeps recorded traffic safe
/// when the key leaks later.
///
/// Invariant: a stream that exists talks to a holder of the key, or every read and write fails.
/// Threads: as ByteStream. Lifetime: the counter is borrowed and outlives the stream; shut_down()
/// and join both users before destroying it.
class TlsStream final : public ByteStream {
 public:
  /// The client's side of a connected socket. kInvalid: the peer does not hold this session's
  /// secret. kUnavailable: the connection broke. kTimedOut: no handshake by the deadline.
  static Result<std::unique_ptr<TlsStream>> connect(Fd socket, const std::string& session,
                                                    const PreSharedKey& key, WireCounter& counter,
                                                    Deadline deadline);

  /// The listener's side. Errors as connect().
  static Result<std::unique_ptr<TlsStream>> accept(Fd socket, const FindKey& find_key,
                                                   WireCounter& counter, Deadline deadline);

  ~TlsStream() override;

  /// kUnavailable also when the peer ends without TLS's own farewell: the end may be forged.
  Result<std::size_t> read_some(std::span<std::byte> buffer, Deadline deadline) override;
  Result<void> write_all(std::span<const std::byte> bytes, Deadline deadline) override;
  Result<void> finish_writing() override;
  void shut_down() override;

  /// The session that the client named; set on both sides.
  const std::string& session() const;

 private:
  struct Connection;

  explicit TlsStream(std::unique_ptr<Connection> connection);

  const std::unique_ptr<Connection> connection_;
  std::atomic<bool> shut_down_ = false;
};

}  // namespace samepage::migrator
