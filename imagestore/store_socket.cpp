#include "imagestore/store_socket.h"

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <system_error>
#include <utility>

#include <poll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

namespace samepage::imagestore {
namespace {

constexpr int kBacklog = 512;

std::string why(int code) {
  return std::generic_category().message(code);
}

Result<sockaddr_un> address_of(const std::string& path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.empty() || path.size() >= sizeof(address.sun_path)) {
    return fail(Errc::kInvalid, "the socket path \"" + path + "\" is empty or too long");
  }
  std::ranges::copy(path, std::begin(address.sun_path));
  return address;
}

Result<void> wait_for(int socket, short events, Deadline deadline) {
  while (true) {
    const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(
        deadline - std::chrono::steady_clock::now());
    pollfd waited{.fd = socket, .events = events, .revents = 0};
    const auto left_ms = std::clamp<std::int64_t>(left.count(), 0, 3'600'000);
    const int ready = ::poll(&waited, 1, static_cast<int>(left_ms));
    if (ready > 0) return {};
    if (ready == 0) return fail(Errc::kTimedOut, "the store's socket is not ready");
    if (errno != EINTR) return fail(Errc::kIo, "wait for the store's socket: " + why(errno));
  }
}

Result<Fd> make_socket() {
  Fd socket(::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!socket) return fail(Errc::kIo, "make a socket: " + why(errno));
  // A message larger than the send buffer could never be sent.
  constexpr int kBuffer = 2 * static_cast<int>(kStoreFrameBytesMax);
  ::setsockopt(socket.get(), SOL_SOCKET, SO_SNDBUF, &kBuffer, sizeof(kBuffer));
  return socket;
}

bool connects(const sockaddr_un& address) {
  const auto probe = make_socket();
  return probe &&
         ::connect(probe->get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)) == 0;
}

}  // namespace

Result<Fd> listen_store(const std::string& path) {
  const sockaddr_un address = TRY(address_of(path));
  Fd socket = TRY(make_socket());
  if (connects(address)) {
    return fail(Errc::kUnavailable, "another process serves " + path + " already");
  }
  ::unlink(path.c_str());
  const auto* const generic = reinterpret_cast<const sockaddr*>(&address);
  if (::bind(socket.get(), generic, sizeof(address)) != 0 || ::chmod(path.c_str(), 0660) != 0 ||
      ::listen(socket.get(), kBacklog) != 0) {
    return fail(Errc::kIo, "listen on " + path + ": " + why(errno));
  }
  return socket;
}

Result<Fd> connect_store(const std::string& path) {
  const sockaddr_un address = TRY(address_of(path));
  Fd socket = TRY(make_socket());
  if (::connect(socket.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)) != 0) {
    return fail(Errc::kUnavailable, "no store answers at " + path + ": " + why(errno) +
                                        "; is samepaged running there?");
  }
  return socket;
}

Result<void> send_frame(int socket, std::span<const std::byte> bytes, int descriptor,
                        Deadline deadline) {
  if (bytes.empty() || bytes.size() > kStoreFrameBytesMax) {
    return fail(Errc::kInvalid, "a store message of " + std::to_string(bytes.size()) + " bytes");
  }
  iovec part{.iov_base = const_cast<std::byte*>(bytes.data()),  // NOLINT: only read by sendmsg.
             .iov_len = bytes.size()};
  alignas(cmsghdr) std::array<std::byte, CMSG_SPACE(sizeof(int))> control{};
  msghdr message{};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  if (descriptor >= 0) {
    message.msg_control = control.data();
    message.msg_controllen = control.size();
    cmsghdr* const header = CMSG_FIRSTHDR(&message);
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(sizeof(int));
    std::memcpy(CMSG_DATA(header), &descriptor, sizeof(descriptor));
  }
  while (true) {
    const ssize_t sent = ::sendmsg(socket, &message, MSG_NOSIGNAL);
    if (sent >= 0) return {};
    if (errno == EAGAIN) {
      TRY(wait_for(socket, POLLOUT, deadline));
    } else if (errno != EINTR) {
      return fail(Errc::kUnavailable, "the store's peer is gone: " + why(errno));
    }
  }
}

Result<StoreFrame> receive_frame(int socket, Deadline deadline) {
  StoreFrame frame;
  frame.bytes.resize(kStoreFrameBytesMax);
  alignas(cmsghdr) std::array<std::byte, CMSG_SPACE(sizeof(int))> control{};
  ssize_t got = -1;
  while (got < 0) {
    iovec part{.iov_base = frame.bytes.data(), .iov_len = frame.bytes.size()};
    msghdr message{};
    message.msg_iov = &part;
    message.msg_iovlen = 1;
    message.msg_control = control.data();
    message.msg_controllen = control.size();
    got = ::recvmsg(socket, &message, MSG_CMSG_CLOEXEC);
    if (got < 0 && errno == EAGAIN) {
      TRY(wait_for(socket, POLLIN, deadline));
      continue;
    }
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return fail(Errc::kUnavailable, "the store's peer is gone: " + why(errno));
    const cmsghdr* const header = CMSG_FIRSTHDR(&message);
    const bool has_descriptor = header != nullptr && header->cmsg_level == SOL_SOCKET &&
                                header->cmsg_type == SCM_RIGHTS &&
                                header->cmsg_len == CMSG_LEN(sizeof(int));
    if (has_descriptor) {
      int descriptor = -1;
      std::memcpy(&descriptor, CMSG_DATA(header), sizeof(descriptor));
      frame.descriptor = Fd(descriptor);
    }
    if ((message.msg_flags & MSG_TRUNC) != 0) {
      return fail(Errc::kCorrupt, "a store message is larger than it may be");
    }
  }
  if (got == 0) return fail(Errc::kUnavailable, "the store's peer has closed the connection");
  frame.bytes.resize(static_cast<std::size_t>(got));
  return frame;
}

}  // namespace samepage::imagestore
