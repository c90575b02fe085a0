#include "migrator/socket_stream.h"

#include <cerrno>
#include <thread>

#include <fcntl.h>
#include <linux/sockios.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include "core/check.h"
#include "migrator/socket_calls.h"

namespace samepage::migrator {
namespace {

constexpr std::chrono::microseconds kReadPollInterval{50};

bool would_block(int error) {
  return error == EAGAIN || error == EWOULDBLOCK;
}

Error connect_error(const std::string& where, int error) {
  const Errc code = error == ENOENT ? Errc::kNotFound : Errc::kUnavailable;
  return Error(code, failed_call("connect to " + where, error));
}

Result<Fd> connect_to(const SocketAddress& address, const std::string& where, Deadline deadline) {
  Fd fd = TRY(open_socket(address.family()));
  if (::connect(fd.get(), address.raw(), address.size) == 0) return fd;
  if (errno != EINPROGRESS) return tl::unexpected(connect_error(where, errno));

  if (auto ready = wait_for(fd.get(), POLLOUT, deadline); !ready) {
    return tl::unexpected(std::move(ready).error().within("connect to " + where));
  }
  int error = 0;
  socklen_t size = sizeof(error);
  if (::getsockopt(fd.get(), SOL_SOCKET, SO_ERROR, &error, &size) != 0) error = errno;
  if (error != 0) return tl::unexpected(connect_error(where, error));
  return fd;
}

}  // namespace

SocketStream::SocketStream(Fd socket) : socket_(std::move(socket)) {
  CHECK(socket_);
  const int flags = ::fcntl(socket_.get(), F_GETFL);
  CHECK(flags >= 0);
  CHECK(::fcntl(socket_.get(), F_SETFL, flags | O_NONBLOCK) == 0);
}

Result<std::size_t> SocketStream::read_some(std::span<std::byte> buffer, Deadline deadline) {
  CHECK(!buffer.empty());
  for (;;) {
    if (shut_down_) return fail(Errc::kUnavailable, "read: the connection was shut down");
    const ssize_t got = ::recv(socket_.get(), buffer.data(), buffer.size(), 0);
    // After shutdown(2) the kernel reports an end that the peer never sent.
    if (got == 0 && shut_down_) continue;
    if (got >= 0) return static_cast<std::size_t>(got);
    if (errno == EINTR) continue;
    if (!would_block(errno)) return fail(Errc::kUnavailable, failed_call("read", errno));
    TRY(wait_for(socket_.get(), POLLIN, deadline));
  }
}

Result<void> SocketStream::write_all(std::span<const std::byte> bytes, Deadline deadline) {
  while (!bytes.empty()) {
    if (shut_down_) return fail(Errc::kUnavailable, "write: the connection was shut down");
    const ssize_t sent = ::send(socket_.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL);
    if (sent >= 0) {
      bytes = bytes.subspan(static_cast<std::size_t>(sent));
      continue;
    }
    if (errno == EINTR) continue;
    if (!would_block(errno)) return fail(Errc::kUnavailable, failed_call("write", errno));
    TRY(wait_for(socket_.get(), POLLOUT, deadline));
  }
  return {};
}

Result<void> SocketStream::finish_writing() {
  if (::shutdown(socket_.get(), SHUT_WR) == 0) return {};
  return fail(Errc::kUnavailable, failed_call("finish writing", errno));
}

void SocketStream::shut_down() {
  shut_down_ = true;
  // Wakes a poll(2) in either direction; failing means that the peer was faster.
  static_cast<void>(::shutdown(socket_.get(), SHUT_RDWR));
}

Result<void> SocketStream::wait_until_read(Deadline deadline) {
  for (;;) {
    int unread = 0;
    if (::ioctl(socket_.get(), SIOCOUTQ, &unread) != 0) {
      return fail(Errc::kIo, failed_call("ask for unread bytes", errno));
    }
    // A peer that closes frees its queue, which looks like having read it; so look at both, and in
    // this order: an open peer after an empty queue has read.
    pollfd entry{.fd = socket_.get(), .events = 0, .revents = 0};
    static_cast<void>(::poll(&entry, 1, 0));
    if (shut_down_ || (entry.revents & (POLLHUP | POLLERR)) != 0) {
      return fail(Errc::kUnavailable, "the peer closed and may not have read everything");
    }
    if (unread == 0) return {};
    if (std::chrono::steady_clock::now() >= deadline) {
      return fail(Errc::kTimedOut, "the peer has not read everything in time");
    }
    // The kernel has no event for "the peer has read"; microseconds matter here, wake-ups do not.
    std::this_thread::sleep_for(kReadPollInterval);
  }
}

Result<Fd> connect_unix(const std::string& path, Deadline deadline) {
  const SocketAddress address = TRY(unix_address(path));
  return connect_to(address, path, deadline);
}

Result<Fd> connect_tcp(const std::string& address, std::uint16_t port, Deadline deadline) {
  const SocketAddress target = TRY(tcp_address(address, port));
  Fd fd = TRY(connect_to(target, address + " port " + std::to_string(port), deadline));
  tune_tcp(fd.get());
  return fd;
}

}  // namespace samepage::migrator
