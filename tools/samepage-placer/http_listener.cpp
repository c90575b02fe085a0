#include "tools/samepage-placer/http_listener.h"

#include <cerrno>
#include <cstring>
#include <memory>
#include <system_error>
#include <utility>

#include <netdb.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#include "core/handle.h"

namespace samepage::http {
namespace {

constexpr int kBacklog = 64;

tl::unexpected<Error> system_error(Errc code, const std::string& attempt) {
  const int error = errno;
  return fail(code, attempt + ": " + std::generic_category().message(error));
}

Result<sockaddr_un> unix_address(const std::string& path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.empty() || path.size() >= sizeof(address.sun_path)) {
    return fail(Errc::kInvalid, "a socket's path has 1 to " +
                                    std::to_string(sizeof(address.sun_path) - 1) +
                                    " characters: '" + path + "'");
  }
  std::memcpy(&address.sun_path[0], path.data(), path.size());
  return address;
}

template <class Address>
const sockaddr* generic(const Address& address) {
  return reinterpret_cast<const sockaddr*>(&address);
}

bool somebody_listens(const sockaddr_un& address) {
  const Fd probe(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!probe) return true;
  const int connected = ::connect(probe.get(), generic(address), sizeof(address));
  // EAGAIN is a full backlog: a server that is busy is there all the same.
  return connected == 0 || errno == EAGAIN || errno == EINPROGRESS;
}

Result<void> make_way(const std::string& path, const sockaddr_un& address) {
  struct stat status {};
  if (::lstat(path.c_str(), &status) != 0) {
    if (errno == ENOENT) return {};
    return system_error(Errc::kIo, "look at " + path);
  }
  if (!S_ISSOCK(status.st_mode)) return fail(Errc::kInvalid, path + " is in the way: not a socket");
  if (somebody_listens(address)) {
    return fail(Errc::kUnavailable, "another server listens on " + path);
  }
  if (::unlink(path.c_str()) != 0) return system_error(Errc::kIo, "remove the stale " + path);
  return {};
}

}  // namespace

Result<UnixListener> UnixListener::create(const std::string& path) {
  const sockaddr_un address = TRY(unix_address(path));
  TRY(make_way(path, address));

  Fd socket(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  if (!socket) return system_error(Errc::kIo, "create a socket");
  if (::bind(socket.get(), generic(address), sizeof(address)) != 0) {
    return system_error(Errc::kIo, "bind " + path);
  }
  struct stat status {};
  const bool found = ::lstat(path.c_str(), &status) == 0;
  if (!found) return system_error(Errc::kIo, "look at " + path);
  UnixListener listener(std::move(socket), path, status.st_dev, status.st_ino);
  // Connections are refused until listen(), so nobody slips in before the mode is set.
  if (::chmod(path.c_str(), S_IRUSR | S_IWUSR | S_IRGRP | S_IWGRP) != 0) {
    return system_error(Errc::kIo, "set the mode of " + path);
  }
  if (::listen(listener.socket_.get(), kBacklog) != 0) {
    return system_error(Errc::kIo, "listen on " + path);
  }
  return listener;
}

UnixListener::UnixListener(Fd socket, std::string path, dev_t device, ino_t inode)
    : socket_(std::move(socket)), path_(std::move(path)), device_(device), inode_(inode) {}

UnixListener::UnixListener(UnixListener&& other) noexcept
    : socket_(std::move(other.socket_)),
      path_(std::exchange(other.path_, {})),
      device_(other.device_),
      inode_(other.inode_) {}

UnixListener::~UnixListener() {
  struct stat status {};
  if (path_.empty() || ::lstat(path_.c_str(), &status) != 0) return;
  if (status.st_dev == device_ && status.st_ino == inode_) ::unlink(path_.c_str());
}

Result<TcpListener> listen_tcp(const std::string& address) {
  const std::size_t colon = address.rfind(':');
  if (colon == std::string::npos) {
    return fail(Errc::kInvalid, "'" + address + "' is not ADDRESS:PORT");
  }
  std::string host = address.substr(0, colon);
  if (host.size() > 2 && host.front() == '[' && host.back() == ']') {
    host = host.substr(1, host.size() - 2);
  }
  addrinfo hints{};
  hints.ai_flags = AI_NUMERICHOST | AI_NUMERICSERV | AI_PASSIVE;
  hints.ai_socktype = SOCK_STREAM;
  addrinfo* found = nullptr;
  if (::getaddrinfo(host.c_str(), address.c_str() + colon + 1, &hints, &found) != 0) {
    return fail(Errc::kInvalid, "'" + address + "' is not a numeric ADDRESS:PORT");
  }
  const Handle<addrinfo, ::freeaddrinfo> endpoint(found);

  TcpListener listener;
  listener.socket.reset(::socket(endpoint->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0));
  if (!listener.socket) return system_error(Errc::kIo, "create a socket");
  const int on = 1;
  ::setsockopt(listener.socket.get(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
  if (::bind(listener.socket.get(), endpoint->ai_addr, endpoint->ai_addrlen) != 0 ||
      ::listen(listener.socket.get(), kBacklog) != 0) {
    return system_error(Errc::kIo, "listen on " + address);
  }
  sockaddr_in6 bound{};  // Large enough for both families; the port lies at the same place.
  socklen_t size = sizeof(bound);
  if (::getsockname(listener.socket.get(), reinterpret_cast<sockaddr*>(&bound), &size) != 0) {
    return system_error(Errc::kIo, "name the socket of " + address);
  }
  listener.address = address.substr(0, colon + 1) + std::to_string(ntohs(bound.sin6_port));
  return listener;
}

}  // namespace samepage::http
