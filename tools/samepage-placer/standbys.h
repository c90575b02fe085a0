#pragma once

#include <atomic>
#include <chrono>
#include <map>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "core/bus.h"
#include "core/clock.h"
#include "core/database.h"
#include "core/mutex.h"
#include "core/result.h"
#include "tools/samepage-placer/fleet_state.h"
#include "tools/samepage-placer/storms.h"

namespace samepage::control {

/// Sleeping forks that take over when a VM's host fails. As in T. Wood et al., "ZZ and the Art of
/// Practical BFT Execution", EuroSys 2011: replicas that sleep cost almost nothing.
///
/// Fencing: a standby wakes only when the VM that it stands for certainly does not run: its host
/// reports without it, or the host is down and the fence command said that it is off. Nothing else
/// proves it: a silent agent may sit on a host whose VMs go on. Only wake() with `force` overrides.
/// Invariant: who stands for whom is on the disk before a standby is woken; from then on the woken
/// one is the VM, so a second is woken only when that one is certainly gone in turn.
/// Threads: every method may be called from any thread; one of its own watches over hosts.
/// Lifetime: borrows what it is given; stop() before the bus is closed.
class Standbys {
 public:
  struct Options {
    std::string path;  ///< Of its SQLite file.
    /// Run as COMMAND HOST; exit code 0: the host is off. Empty: no standby wakes by itself.
    std::string fence_command;
    std::chrono::seconds fence_after{30};  ///< That a host was down.
  };

  /// Errors as Database::open().
  static Result<std::unique_ptr<Standbys>> create(Options options, BusServer& bus,
                                                  FleetState& fleet, Storms& storms,
                                                  const Clock& clock);
  ~Standbys();
  Standbys(const Standbys&) = delete;
  Standbys& operator=(const Standbys&) = delete;

  struct Order {
    std::string vm;
    std::string source;  ///< The template that its standbys are forked from.
    std::size_t count = 1;
    std::vector<std::string> on;
  };

  /// Begins to fork sleepers, on other hosts than the VM's; the storm shows how far it is.
  /// kNotFound: no such VM. Others: as Storms::begin().
  Result<StormRecord> add(const Order& order, Deadline deadline);

  struct Sleeper {
    std::string name;
    std::string host;
    std::string state;  ///< "asleep", "awake", "gone" or "unknown".
  };
  struct Status {
    std::string vm;
    std::string now;  ///< The VM that stands for it now: its own name, or a woken standby's.
    std::string host;
    std::string state;  ///< "running", "gone", "unknown" (its host is down) or "fenced".
    std::vector<Sleeper> sleepers;
  };
  Result<std::vector<Status>> list() const;

  /// Wakes one. kNotFound: no standby of it is asleep. kUnavailable: the VM may be running, and
  /// `force` is not set; the message says where and what would prove that it does not.
  Result<Sleeper> wake(const std::string& vm, bool force, Deadline deadline);

  /// Ends the sleepers and forgets them. kNotFound: it has none.
  Result<void> remove(const std::string& vm, Deadline deadline);

  void stop();

 private:
  Standbys(Options options, Database database, BusServer& bus, FleetState& fleet, Storms& storms,
           const Clock& clock);

  Result<std::vector<Status>> read() const REQUIRES(mutex_);
  Result<Status> read(const std::string& vm) const REQUIRES(mutex_);
  Result<void> become(const std::string& vm, const Sleeper& sleeper) REQUIRES(mutex_);
  Result<Sleeper> wake_one(const Status& status, Deadline deadline) REQUIRES(mutex_);
  void watch(const std::stop_token& stop);
  void look();
  void fence_hosts(const placer::Fleet& fleet);
  bool fence(const std::string& host) const;

  const Options options_;
  BusServer& bus_;
  FleetState& fleet_;
  Storms& storms_;
  const Clock& clock_;
  mutable Mutex mutex_;  // Held while one is woken: never two at once.
  mutable Database database_ GUARDED_BY(mutex_);
  struct Down {
    std::chrono::steady_clock::time_point since;
    std::chrono::steady_clock::time_point next_try;
    bool fenced = false;
  };
  std::map<std::string, Down> down_ GUARDED_BY(mutex_);
  std::jthread watcher_;
};

}  // namespace samepage::control
