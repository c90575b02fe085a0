#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <string>

#include "core/fd.h"
#include "migrator/byte_stream.h"

namespace samepage::migrator {

/// A connected stream socket (UNIX or TCP) as a ByteStream: QEMU's migration stream, libvirt's
/// control connection, the wire under TLS.
///
/// Threads: as ByteStream. Lifetime: shut_down() and join both users before destroying it.
class SocketStream final : public ByteStream {
 public:
  /// Takes a connected socket and makes it non-blocking.
  explicit SocketStream(Fd socket);

  Result<std::size_t> read_some(std::span<std::byte> buffer, Deadline deadline) override;
  Result<void> write_all(std::span<const std::byte> bytes, Deadline deadline) override;
  Result<void> finish_writing() override;
  void shut_down() override;

  /// Returns when the process at the other end of a UNIX socket has taken every byte written so far
  /// out of the socket: stronger than write_all(), whose bytes may still lie in the kernel when the
  /// peer closes. kTimedOut: it has not by then. kUnavailable: the connection broke; the peer may
  /// or may not have read.
  Result<void> wait_until_read(Deadline deadline);

 private:
  const Fd socket_;
  std::atomic<bool> shut_down_ = false;
};

/// Connects to a listening UNIX socket. kNotFound: nothing at this path. kUnavailable: nobody
/// listens there (any more). kInvalid: the path is too long. kTimedOut as ever.
Result<Fd> connect_unix(const std::string& path, Deadline deadline);

/// Connects to a numeric IPv4 or IPv6 address. A peer that vanishes without a word is noticed after
/// about 30 s. kInvalid: not an address. kUnavailable: refused or unreachable; retry is safe.
Result<Fd> connect_tcp(const std::string& address, std::uint16_t port, Deadline deadline);

}  // namespace samepage::migrator
