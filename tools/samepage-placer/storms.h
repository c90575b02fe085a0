#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <deque>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "core/bus.h"
#include "core/clock.h"
#include "core/mutex.h"
#include "core/result.h"
#include "placer/storm.h"
#include "tools/samepage-placer/fleet_state.h"
#include "tools/samepage-placer/templates.h"

namespace samepage::control {

/// What is asked of a boot storm.
struct StormOrder {
  std::string source;  ///< A template.
  std::size_t count = 1;
  std::string pattern;          ///< The VMs' names, with % for the number; "web-%".
  std::vector<std::string> on;  ///< Hosts to choose from; none: all that are up.
  bool cold = false;
  bool paused = false;
  bool replace_disks = false;  ///< Those that ended VMs of these names left.
};

/// One VM of a storm.
struct StormVm {
  enum class State : std::uint8_t {
    kWaiting,
    kBooting,
    kRunning,   ///< Or paused, when that was asked for.
    kWasThere,  ///< A VM of its name ran already.
    kFailed,
    kCancelled,
  };
  std::string name;
  std::string uuid;
  std::string host;
  State state = State::kWaiting;
  std::string error;
  std::uint64_t took_ms = 0;
  std::uint64_t own_bytes = 0;
};
std::string_view to_string(StormVm::State state);

struct StormRecord {
  std::uint64_t id = 0;  ///< 0: a dry run.
  StormOrder order;
  std::string template_name;
  bool ended = false;
  std::vector<StormVm> vms;
  struct Host {
    std::string name;
    std::string reason;
    unsigned boots_at_once = 1;
    std::size_t vms = 0;
    std::uint64_t fetched_bytes = 0;
    double used_after = 0;
  };
  std::vector<Host> hosts;
  double peak = 0;
  double peak_bound = 0;
  std::uint64_t decided_us = 0;
  std::uint64_t took_ms = 0;  ///< So far, or in all.
};

/// Boots many VMs at once: decides about all of them in one decision, then has the agents carry it
/// out.
///
/// A storm is not journalled. What it has done is to be seen in the fleet, so asking for it again
/// completes it: a VM of a name that is there already is left alone.
/// Threads: every method may be called from any thread. Lifetime: borrows what it is given; close
/// the bus first, so that threads that wait for agents can be joined.
class Storms {
 public:
  Storms(BusServer& bus, FleetState& fleet, Templates& templates, const Clock& clock)
      : bus_(bus), fleet_(fleet), templates_(templates), clock_(clock) {}
  ~Storms();
  Storms(const Storms&) = delete;
  Storms& operator=(const Storms&) = delete;

  /// Decides, starts nothing. kInvalid: the order makes no sense. kNotFound: no such template.
  /// kUnavailable: there is no memory for all of it.
  Result<StormRecord> decide(const StormOrder& order, Deadline deadline);

  /// Decides and begins. Errors as decide(); kUnavailable also: too many storms go on.
  Result<StormRecord> begin(const StormOrder& order, Deadline deadline);

  /// Begins what was decided. kUnavailable: too many storms go on.
  Result<StormRecord> begin(const StormRecord& decided);

  /// kNotFound: no storm of that number, or it ended long ago.
  Result<StormRecord> show(std::uint64_t id) const;

  /// VMs that have not begun to boot are left out. kNotFound.
  Result<void> cancel(std::uint64_t id);

 private:
  static constexpr std::size_t kStormsMax = 16;

  struct Work {
    StormRecord record;  // Under mutex_.
    std::chrono::steady_clock::time_point started;
    std::atomic<bool> cancelled = false;
    std::vector<std::jthread> threads;
  };

  void run_host(Work& work, std::size_t host);
  bool take_next(Work& work, std::size_t host, std::size_t& vm);
  Result<bus::BootedVm> boot(const StormRecord& record, const StormVm& vm);
  void finish(Work& work, std::size_t vm, const Result<bus::BootedVm>& booted);
  bool prepare_host(Work& work, std::size_t host);

  BusServer& bus_;
  FleetState& fleet_;
  Templates& templates_;
  const Clock& clock_;
  mutable Mutex mutex_;
  std::deque<std::shared_ptr<Work>> works_ GUARDED_BY(mutex_);  // Oldest first.
  std::uint64_t last_id_ GUARDED_BY(mutex_) = 0;
};

}  // namespace samepage::control
