#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <string>

#include "core/clock.h"
#include "core/fd.h"
#include "core/result.h"

namespace samepage::migrator {

/// Ports to try, both inclusive. Zero and zero: whichever the system gives.
struct PortRange {
  std::uint16_t first = 0;
  std::uint16_t last = 0;
};

/// A listening UNIX or TCP socket. A UNIX socket's file exists exactly as long as the listener.
/// Threads: accept() from one thread; stop() from any, for good.
class SocketListener final {
 public:
  /// Replaces a stale socket at `path`; the new one is accessible to its owner only (mode 0600).
  /// kInvalid: the path is too long, or something other than a socket lies there. kIo: see message.
  static Result<std::unique_ptr<SocketListener>> listen_unix(const std::string& path);

  /// Listens on a numeric address. kInvalid: not an address of this host. kUnavailable: every port
  /// of the range is taken.
  static Result<std::unique_ptr<SocketListener>> listen_tcp(const std::string& address,
                                                            PortRange ports);

  SocketListener(const SocketListener&) = delete;
  SocketListener& operator=(const SocketListener&) = delete;
  ~SocketListener();

  /// kTimedOut: nobody came before the deadline. kUnavailable: stop() was called.
  Result<Fd> accept(Deadline deadline);

  /// Who waits to be accepted is disconnected, who comes later is refused.
  void stop();

  /// The TCP port; zero for a UNIX socket.
  std::uint16_t port() const { return port_; }

 private:
  SocketListener(Fd socket, Fd wake, std::string path, std::uint16_t port);
  static Result<std::unique_ptr<SocketListener>> create(Fd socket, std::string path,
                                                        std::uint16_t port);

  const Fd socket_;
  const Fd wake_;  // An eventfd that stop() makes readable.
  const std::string path_;
  const std::uint16_t port_;
};

}  // namespace samepage::migrator
