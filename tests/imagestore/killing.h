#pragma once

#include <array>
#include <atomic>
#include <chrono>
#include <csignal>
#include <cstdint>
#include <cstdlib>
#include <new>
#include <stdexcept>
#include <thread>

#include <sched.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

namespace samepage::imagestore {

/// How often a case strikes: SAMEPAGE_FAULTS, which is 1,000 in the full campaign, or `few`.
inline std::uint64_t strikes(std::uint64_t few) {
  const char* const given = std::getenv("SAMEPAGE_FAULTS");  // NOLINT(concurrency-mt-unsafe)
  return given == nullptr ? few : std::strtoull(given, nullptr, 10);
}

/// It ended by the kill, and by nothing else.
inline bool was_killed(int status) {
  return WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL;
}

/// What a child that will be killed tells its parent, and the other way round.
struct Told {
  std::atomic<bool> ready = false;
  std::atomic<std::uint64_t> done = 0;   ///< Versions, rounds: what the case counts.
  std::atomic<std::uint64_t> round = 0;  ///< The parent's.
};

/// A Told that processes share which were forked since.
class Shared {
 public:
  Shared()
      : told_(new (::mmap(nullptr, sizeof(Told), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS,
                          -1, 0)) Told) {}
  Shared(const Shared&) = delete;
  Shared& operator=(const Shared&) = delete;
  ~Shared() { ::munmap(told_, sizeof(Told)); }
  Told* operator->() const { return told_; }

 private:
  Told* told_;
};

/// Runs `work` in a child, kills it `moment` after it is ready, and returns how it ended, as
/// waitpid() does. One that is never ready counts as exit 124.
template <class Work>
int kill_in(const Shared& told, std::chrono::microseconds moment, const Work& work) {
  told->ready = false;
  const pid_t child = ::fork();
  if (child == 0) {
    work();
    ::_exit(3);
  }
  int status = 0;
  const auto give_up = std::chrono::steady_clock::now() + std::chrono::minutes(1);
  while (!told->ready && std::chrono::steady_clock::now() < give_up) {
    if (::waitpid(child, &status, WNOHANG) == child) return status;
    ::sched_yield();
  }
  std::this_thread::sleep_for(moment);
  ::kill(child, SIGKILL);
  ::waitpid(child, &status, 0);
  return told->ready ? status : W_EXITCODE(124, 0);
}

/// A process that does kill_in() with the same work again and again, for tests that have threads:
/// a fork of a process with threads may find locks held that nobody will ever let go of.
///
/// Lifetime: made before the test's first thread.
class Killer {
 public:
  template <class Work>
  Killer(const Shared& told, const Work& work) {
    std::array<int, 2> ends{};
    if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends.data()) != 0) {
      throw std::runtime_error("socketpair");
    }
    process_ = ::fork();
    orders_ = ends[process_ == 0 ? 1 : 0];
    ::close(ends[process_ == 0 ? 0 : 1]);
    if (process_ == 0) serve(told, work);
  }
  Killer(const Killer&) = delete;
  Killer& operator=(const Killer&) = delete;
  ~Killer() {
    ::close(orders_);
    ::waitpid(process_, nullptr, 0);
  }

  /// As kill_in().
  int kill_after(std::chrono::microseconds moment) const {
    const std::int64_t order = moment.count();
    int status = -1;
    const bool done = ::write(orders_, &order, sizeof(order)) == sizeof(order) &&
                      ::recv(orders_, &status, sizeof(status), MSG_WAITALL) == sizeof(status);
    return done ? status : W_EXITCODE(125, 0);
  }

 private:
  template <class Work>
  [[noreturn]] void serve(const Shared& told, const Work& work) const {
    std::int64_t order = 0;
    while (::recv(orders_, &order, sizeof(order), MSG_WAITALL) == sizeof(order)) {
      const int status = kill_in(told, std::chrono::microseconds(order), work);
      if (::write(orders_, &status, sizeof(status)) != sizeof(status)) break;
    }
    ::_exit(0);
  }

  pid_t process_ = -1;
  int orders_ = -1;
};

}  // namespace samepage::imagestore
