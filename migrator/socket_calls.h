#pragma once

#include <cstdint>
#include <span>
#include <string>

#include <poll.h>
#include <sys/socket.h>

#include "core/clock.h"
#include "core/fd.h"
#include "core/result.h"

namespace samepage::migrator {

/// A socket's address as bind(2) and connect(2) want it.
struct SocketAddress {
  sockaddr_storage storage{};
  socklen_t size = 0;

  const sockaddr* raw() const;
  int family() const { return storage.ss_family; }
};

/// kInvalid: empty, or longer than the kernel takes (107 bytes).
Result<SocketAddress> unix_address(const std::string& path);

/// Numeric IPv4 or IPv6, names are not looked up. kInvalid: neither.
Result<SocketAddress> tcp_address(const std::string& address, std::uint16_t port);

/// A non-blocking stream socket that no child process inherits.
Result<Fd> open_socket(int family);

/// Small writes leave at once, a peer that vanished without a word is noticed, and where the host's
/// own link is full, traffic of other kinds goes first: guests', and what agents and placer say.
void tune_tcp(int fd);

/// Waits for poll(2) events of one or several descriptors. kTimedOut at the deadline. Hang-up and
/// errors of a descriptor count as success: the call that follows meets them.
Result<void> wait_for(int fd, short events, Deadline deadline);
Result<void> wait_for_any(std::span<pollfd> entries, Deadline deadline);

/// What errno `error` means in words, prefixed with what failed: "connect /run/x: No such file".
std::string failed_call(const std::string& what, int error);

}  // namespace samepage::migrator
