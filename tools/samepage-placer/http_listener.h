#pragma once

#include <string>
#include <utility>

#include <sys/types.h>

#include "core/fd.h"
#include "core/result.h"

namespace samepage::http {

/// A UNIX socket in the file system that accepts connections; its file goes away with it, unless
/// somebody else has put another file in its place.
class UnixListener {
 public:
  /// Listens with mode 0660. A socket file that nobody listens on any more is replaced.
  /// kUnavailable: somebody listens there. kInvalid: the path is too long, or a file that is no
  /// socket lies there. kIo: the system refused.
  static Result<UnixListener> create(const std::string& path);

  UnixListener(UnixListener&& other) noexcept;
  UnixListener& operator=(UnixListener&&) = delete;
  UnixListener(const UnixListener&) = delete;
  UnixListener& operator=(const UnixListener&) = delete;
  ~UnixListener();

  /// Gives the descriptor away; the file stays this object's.
  Fd take_socket() { return std::move(socket_); }

 private:
  UnixListener(Fd socket, std::string path, dev_t device, ino_t inode);

  Fd socket_;
  std::string path_;  // Empty once moved from.
  dev_t device_;
  ino_t inode_;
};

struct TcpListener {
  Fd socket;
  std::string address;  ///< Numeric, with the port that was chosen when 0 was asked for.
};

/// `address` is a numeric address and a port, "127.0.0.1:8006" or "[::1]:0".
/// kInvalid: it is not. kIo: the system refused.
Result<TcpListener> listen_tcp(const std::string& address);

}  // namespace samepage::http
