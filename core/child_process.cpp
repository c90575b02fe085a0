#include "core/child_process.h"

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <system_error>
#include <utility>

#include <fcntl.h>
#include <poll.h>
#include <spawn.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

extern char** environ;

namespace samepage {
namespace {

Result<pid_t> spawn(std::vector<std::string> words, const posix_spawn_file_actions_t* actions,
                    const posix_spawnattr_t* attributes) {
  std::vector<char*> argv;
  argv.reserve(words.size() + 1);
  for (std::string& word : words) argv.push_back(word.data());
  argv.push_back(nullptr);
  pid_t pid = 0;
  const int failed =
      ::posix_spawnp(&pid, words.front().c_str(), actions, attributes, argv.data(), environ);
  if (failed == 0) return pid;
  return fail(Errc::kIo, "start " + words.front() + ": " + std::generic_category().message(failed));
}

bool wait_end(const Fd& process, Deadline deadline) {
  using std::chrono::milliseconds;
  pollfd ended{.fd = process.get(), .events = POLLIN, .revents = 0};
  for (;;) {
    const auto left = std::chrono::ceil<milliseconds>(deadline - Deadline::clock::now());
    const auto wait = std::clamp(left, milliseconds(0), milliseconds(1'000));
    if (::poll(&ended, 1, static_cast<int>(wait.count())) == 1) return true;
    if (left.count() <= 0) return false;
  }
}

}  // namespace

Result<pid_t> spawn_process(std::vector<std::string> words) {
  return spawn(std::move(words), nullptr, nullptr);
}

Result<pid_t> spawn_daemon(std::vector<std::string> words, const std::string& log) {
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0);
  posix_spawn_file_actions_addopen(&actions, 1, log.c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0600);
  posix_spawn_file_actions_adddup2(&actions, 1, 2);
  posix_spawnattr_t attributes;
  posix_spawnattr_init(&attributes);
  // Signals to this program's group are not the other's, and it does not inherit blocked ones.
  sigset_t none;
  ::sigemptyset(&none);
  posix_spawnattr_setsigmask(&attributes, &none);
  posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSID | POSIX_SPAWN_SETSIGMASK);
  auto pid = spawn(std::move(words), &actions, &attributes);
  posix_spawn_file_actions_destroy(&actions);
  posix_spawnattr_destroy(&attributes);
  return pid;
}

Fd open_process(pid_t pid) {
  // glibc 2.36 has pidfd_open() only in a header that clashes with <fcntl.h> in C++.
  return Fd(static_cast<int>(::syscall(SYS_pidfd_open, pid, 0)));
}

bool has_ended(const Fd& process) {
  pollfd ended{.fd = process.get(), .events = POLLIN, .revents = 0};
  return !process || ::poll(&ended, 1, 0) != 0;
}

std::string how_ended(const Fd& process) {
  siginfo_t info{};
  const auto id = static_cast<id_t>(process.get());
  if (::waitid(P_PIDFD, id, &info, WEXITED | WNOHANG) != 0 || info.si_pid == 0) return "unknown";
  const std::string status = std::to_string(info.si_status);
  return info.si_code == CLD_EXITED ? "exit code " + status : "signal " + status;
}

bool ends_well(pid_t child, Deadline deadline) {
  if (!wait_end(open_process(child), deadline)) ::kill(child, SIGKILL);
  int status = 0;
  while (::waitpid(child, &status, 0) < 0) {
    if (errno != EINTR) return false;
  }
  return WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

}  // namespace samepage
