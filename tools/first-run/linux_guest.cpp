#include "tools/first-run/linux_guest.h"

#include <cerrno>
#include <cstring>
#include <ctime>

#include <fcntl.h>
#include <linux/random.h>
#include <spawn.h>
#include <sys/ioctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "core/fd.h"

namespace samepage::first_run {
namespace {

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

}  // namespace samepage::first_run
