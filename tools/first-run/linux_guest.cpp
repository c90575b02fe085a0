#include "tools/first-run/linux_guest.h"

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <thread>

#include <fcntl.h>
#include <linux/netlink.h>
#include <linux/random.h>
#include <spawn.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "core/fd.h"

namespace samepage::first_run {
namespace {

constexpr unsigned kUdevGroup = 2;  // The kernel's own events, before udev has seen them, are 1.
constexpr std::size_t kMessageBytesMax = 8192;

/// How a message of udev's monitor begins (systemd, libsystemd/sd-device/device-monitor.c); its
/// properties, each "NAME=VALUE" and a zero, begin at `properties_at`.
struct UdevHeader {
  std::array<char, 8> mark;
  std::uint32_t magic;
  std::uint32_t header_bytes;
  std::uint32_t properties_at;
  std::uint32_t properties_bytes;
};

Result<void> checked(bool done) {
  if (!done) return fail(Errc::kIo, std::strerror(errno));
  return {};
}

}  // namespace

Result<void> LinuxGuest::reseed(std::string_view secret) {
  const Fd pool(::open("/dev/urandom", O_WRONLY | O_CLOEXEC));
  return checked(pool &&
                 ::write(pool.get(), secret.data(), secret.size()) ==
                     static_cast<ssize_t>(secret.size()) &&
                 ::ioctl(pool.get(), RNDRESEEDCRNG) == 0);
}

Result<void> LinuxGuest::set_clock(std::chrono::seconds since_epoch) {
  const timespec now{.tv_sec = since_epoch.count(), .tv_nsec = 0};
  return checked(::clock_settime(CLOCK_REALTIME, &now) == 0);
}

Result<void> LinuxGuest::set_host_name(const std::string& name) {
  return checked(::sethostname(name.data(), name.size()) == 0);
}

Result<void> LinuxGuest::run(const std::vector<std::string>& command) {
  std::vector<char*> words;
  for (const std::string& word : command) words.push_back(const_cast<char*>(word.c_str()));
  words.push_back(nullptr);
  pid_t child = -1;
  int status = ::posix_spawnp(&child, words.front(), nullptr, nullptr, words.data(), environ);
  if (status != 0) return fail(Errc::kIo, command.front() + ": " + std::strerror(status));
  while (::waitpid(child, &status, 0) < 0) {
    if (errno != EINTR) return checked(false);
  }
  if (status != 0) return fail(Errc::kIo, command.front() + " failed");
  return {};
}

LinuxGuest::LinuxGuest()
    : udev_(::socket(AF_NETLINK, SOCK_DGRAM | SOCK_CLOEXEC, NETLINK_KOBJECT_UEVENT)) {
  sockaddr_nl address{};
  address.nl_family = AF_NETLINK;
  address.nl_groups = kUdevGroup;
  if (::bind(udev_.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0) {
    udev_.reset();
  }
}

Result<void> LinuxGuest::wait_for_card() {
  std::array<char, kMessageBytesMax> message{};
  while (true) {
    const ssize_t size = ::recv(udev_.get(), message.data(), message.size(), 0);
    if (size >= 0 && tells_of_card({message.data(), static_cast<std::size_t>(size)})) return {};
    if (size < 0 && errno == ENOBUFS) return {};  // It may have been among those that are lost.
    if (size < 0 && errno != EINTR) return checked(false);
  }
}

void LinuxGuest::pause(std::chrono::seconds time) {
  std::this_thread::sleep_for(time);
}

bool tells_of_card(std::string_view message) {
  constexpr std::string_view kMark("libudev", 8);
  UdevHeader header;
  if (!message.starts_with(kMark) || message.size() < sizeof header) return false;
  std::memcpy(&header, message.data(), sizeof header);
  if (header.properties_at > message.size()) return false;
  bool added = false;
  bool is_card = false;
  std::string_view rest = message.substr(header.properties_at);
  while (!rest.empty()) {
    const std::string_view property = rest.substr(0, rest.find('\0'));
    added = added || property == "ACTION=add";
    is_card = is_card || property == "SUBSYSTEM=net";
    rest.remove_prefix(std::min(rest.size(), property.size() + 1));
  }
  return added && is_card;
}

void notify_systemd() {
  const char* const path = std::getenv("NOTIFY_SOCKET");
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path == nullptr || std::strlen(path) >= sizeof address.sun_path) return;
  std::strcpy(address.sun_path, path);
  if (address.sun_path[0] == '@') address.sun_path[0] = '\0';  // Of the abstract name space.
  const auto size = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + std::strlen(path));
  const Fd socket(::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  constexpr std::string_view kReady = "READY=1";
  ::sendto(socket.get(), kReady.data(), kReady.size(), MSG_NOSIGNAL,
           reinterpret_cast<const sockaddr*>(&address), size);
}

}  // namespace samepage::first_run
