#include "migrator/socket_listener.h"

#include <array>
#include <cerrno>

#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/check.h"
#include "migrator/socket_calls.h"

namespace samepage::migrator {
namespace {

constexpr int kBacklog = 8;

Result<void> remove_stale_socket(const std::string& path) {
  struct stat status {};
  if (::lstat(path.c_str(), &status) != 0) return {};
  if (!S_ISSOCK(status.st_mode)) return fail(Errc::kInvalid, path + " exists and is no socket");
  if (::unlink(path.c_str()) != 0 && errno != ENOENT) {
    return fail(Errc::kIo, failed_call("remove " + path, errno));
  }
  return {};
}

Result<std::uint16_t> bound_port(int fd) {
  sockaddr_storage storage{};
  socklen_t size = sizeof(storage);
  if (::getsockname(fd, reinterpret_cast<sockaddr*>(&storage), &size) != 0) {
    return fail(Errc::kIo, failed_call("getsockname", errno));
  }
  if (storage.ss_family == AF_INET) {
    return ntohs(reinterpret_cast<const sockaddr_in*>(&storage)->sin_port);
  }
  return ntohs(reinterpret_cast<const sockaddr_in6*>(&storage)->sin6_port);
}

Result<void> bind_first_free(int fd, const std::string& address, PortRange ports) {
  for (std::uint32_t port = ports.first; port <= ports.last; ++port) {
    const SocketAddress local = TRY(tcp_address(address, static_cast<std::uint16_t>(port)));
    // Another listener may take the port between bind and listen, so both belong to the attempt.
    if (::bind(fd, local.raw(), local.size) == 0 && ::listen(fd, kBacklog) == 0) return {};
    if (errno == EADDRNOTAVAIL) return fail(Errc::kInvalid, failed_call("bind " + address, errno));
    if (errno != EADDRINUSE) return fail(Errc::kIo, failed_call("bind " + address, errno));
  }
  return fail(Errc::kUnavailable, "every port of " + std::to_string(ports.first) + "-" +
                                      std::to_string(ports.last) + " is taken on " + address);
}

}  // namespace

Result<std::unique_ptr<SocketListener>> SocketListener::listen_unix(const std::string& path) {
  const SocketAddress address = TRY(unix_address(path));
  TRY(remove_stale_socket(path));
  Fd fd = TRY(open_socket(AF_UNIX));
  // On the unbound socket: bind(2) gives the file these permissions, so it is never open to others.
  if (::fchmod(fd.get(), S_IRUSR | S_IWUSR) != 0) {
    return fail(Errc::kIo, failed_call("restrict " + path, errno));
  }
  if (::bind(fd.get(), address.raw(), address.size) != 0 || ::listen(fd.get(), kBacklog) != 0) {
    return fail(Errc::kIo, failed_call("listen on " + path, errno));
  }
  return create(std::move(fd), path, 0);
}

Result<std::unique_ptr<SocketListener>> SocketListener::listen_tcp(const std::string& address,
                                                                   PortRange ports) {
  if (ports.first > ports.last) return fail(Errc::kInvalid, "the port range is empty");
  const SocketAddress any_port = TRY(tcp_address(address, 0));
  Fd fd = TRY(open_socket(any_port.family()));
  TRY(bind_first_free(fd.get(), address, ports));
  const std::uint16_t port = TRY(bound_port(fd.get()));
  return create(std::move(fd), {}, port);
}

Result<std::unique_ptr<SocketListener>> SocketListener::create(Fd socket, std::string path,
                                                               std::uint16_t port) {
  Fd wake(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (!wake) return fail(Errc::kIo, failed_call("eventfd", errno));
  return std::unique_ptr<SocketListener>(
      new SocketListener(std::move(socket), std::move(wake), std::move(path), port));
}

SocketListener::SocketListener(Fd socket, Fd wake, std::string path, std::uint16_t port)
    : socket_(std::move(socket)), wake_(std::move(wake)), path_(std::move(path)), port_(port) {}

SocketListener::~SocketListener() {
  if (!path_.empty()) static_cast<void>(::unlink(path_.c_str()));
}

Result<Fd> SocketListener::accept(Deadline deadline) {
  for (;;) {
    std::array<pollfd, 2> entries{pollfd{.fd = wake_.get(), .events = POLLIN, .revents = 0},
                                  pollfd{.fd = socket_.get(), .events = POLLIN, .revents = 0}};
    TRY(wait_for_any(entries, deadline));
    if (entries[0].revents != 0) return fail(Errc::kUnavailable, "the listener was stopped");
    Fd accepted(::accept4(socket_.get(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
    if (accepted) {
      if (port_ != 0) tune_tcp(accepted.get());
      return accepted;
    }
    // The client may have left again before it was accepted.
    if (errno != EAGAIN && errno != ECONNABORTED && errno != EINTR) {
      return fail(Errc::kIo, failed_call("accept", errno));
    }
  }
}

void SocketListener::stop() {
  const std::uint64_t one = 1;
  static_cast<void>(!::write(wake_.get(), &one, sizeof(one)));
  // Who comes now is refused, and who waits already is sent away rather than left to wait.
  static_cast<void>(::shutdown(socket_.get(), SHUT_RDWR));
  while (Fd(::accept4(socket_.get(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK))) {
  }
}

}  // namespace samepage::migrator
