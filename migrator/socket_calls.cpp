#include "migrator/socket_calls.h"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <limits>
#include <system_error>

#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/un.h>

namespace samepage::migrator {
namespace {

constexpr int kVanishedPeerSeconds = 30;
constexpr int kBulkPriority = 2;  // The kernel's TC_PRIO_BULK.

void set_option(int fd, int level, int name, int value) {
  // Tuning only: a kernel that refuses it still carries the bytes.
  static_cast<void>(::setsockopt(fd, level, name, &value, sizeof(value)));
}

}  // namespace

const sockaddr* SocketAddress::raw() const {
  return reinterpret_cast<const sockaddr*>(&storage);
}

Result<SocketAddress> unix_address(const std::string& path) {
  sockaddr_un address{};
  if (path.empty() || path.size() >= sizeof(address.sun_path)) {
    return fail(Errc::kInvalid, "a UNIX socket's path has 1 to 107 bytes: '" + path + "'");
  }
  address.sun_family = AF_UNIX;
  std::memcpy(address.sun_path, path.data(), path.size());

  SocketAddress result;
  std::memcpy(&result.storage, &address, sizeof(address));
  result.size = sizeof(address);
  return result;
}

Result<SocketAddress> tcp_address(const std::string& address, std::uint16_t port) {
  SocketAddress result;
  sockaddr_in v4{};
  sockaddr_in6 v6{};
  if (::inet_pton(AF_INET, address.c_str(), &v4.sin_addr) == 1) {
    v4.sin_family = AF_INET;
    v4.sin_port = htons(port);
    std::memcpy(&result.storage, &v4, sizeof(v4));
    result.size = sizeof(v4);
    return result;
  }
  if (::inet_pton(AF_INET6, address.c_str(), &v6.sin6_addr) == 1) {
    v6.sin6_family = AF_INET6;
    v6.sin6_port = htons(port);
    std::memcpy(&result.storage, &v6, sizeof(v6));
    result.size = sizeof(v6);
    return result;
  }
  return fail(Errc::kInvalid, "not an IPv4 or IPv6 address: '" + address + "'");
}

Result<Fd> open_socket(int family) {
  Fd fd(::socket(family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!fd) return fail(Errc::kIo, failed_call("socket", errno));
  return fd;
}

void tune_tcp(int fd) {
  set_option(fd, IPPROTO_TCP, TCP_NODELAY, 1);
  set_option(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, kVanishedPeerSeconds * 1000);
  set_option(fd, SOL_SOCKET, SO_PRIORITY, kBulkPriority);
  set_option(fd, SOL_SOCKET, SO_KEEPALIVE, 1);
  set_option(fd, IPPROTO_TCP, TCP_KEEPIDLE, kVanishedPeerSeconds / 3);
  set_option(fd, IPPROTO_TCP, TCP_KEEPINTVL, kVanishedPeerSeconds / 6);
  set_option(fd, IPPROTO_TCP, TCP_KEEPCNT, 4);
}

Result<void> wait_for(int fd, short events, Deadline deadline) {
  pollfd entry{.fd = fd, .events = events, .revents = 0};
  return wait_for_any(std::span(&entry, 1), deadline);
}

Result<void> wait_for_any(std::span<pollfd> entries, Deadline deadline) {
  for (;;) {
    const auto left =
        std::chrono::ceil<std::chrono::milliseconds>(deadline - std::chrono::steady_clock::now());
    const auto timeout = std::clamp<std::chrono::milliseconds::rep>(
        left.count(), 0, std::numeric_limits<int>::max());
    const int ready = ::poll(entries.data(), entries.size(), static_cast<int>(timeout));
    if (ready > 0) return {};
    if (ready == 0) return fail(Errc::kTimedOut, "the deadline passed");
    if (errno != EINTR) return fail(Errc::kIo, failed_call("poll", errno));
  }
}

std::string failed_call(const std::string& what, int error) {
  return what + ": " + std::system_category().message(error);
}

}  // namespace samepage::migrator
