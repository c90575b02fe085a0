#pragma once

#include <chrono>
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "core/bus.h"
#include "core/clock.h"
#include "core/mutex.h"
#include "core/result.h"
#include "tools/samepage-placer/fleet_state.h"

namespace samepage::control {

/// A template as the fleet has it.
struct FleetTemplate {
  bus::TemplateInfo info;
  struct Place {
    std::string host;
    std::uint64_t ram_bytes = 0;
    std::uint64_t forks = 0;
  };
  std::vector<Place> places;  ///< Hosts where its RAM file lies.
};

/// The boot templates of the fleet. Agents know what lies on their hosts and what the image store
/// has; nothing is kept here but what is being made.
///
/// Threads: every method may be called from any thread. Lifetime: borrows the bus and the fleet;
/// close the bus first, so that threads that wait for agents can be joined.
class Templates {
 public:
  Templates(BusServer& bus, FleetState& fleet) : bus_(bus), fleet_(fleet) {}
  ~Templates();
  Templates(const Templates&) = delete;
  Templates& operator=(const Templates&) = delete;

  struct Listing {
    std::vector<FleetTemplate> templates;  ///< By name.
    std::vector<std::string> silent;       ///< Hosts that are up and did not answer.
  };
  Listing list(Deadline deadline);

  /// By name or id. kNotFound.
  Result<FleetTemplate> find(const std::string& name, Deadline deadline);

  /// Has a host make a template, in the background. kInvalid: one of that name is being made, or no
  /// template can have the name. kUnavailable: no such host is up.
  Result<void> begin(const bus::MakeTemplate& request, const std::string& host);

  struct Making {
    std::string name;
    std::string host;
    bool ended = false;
    std::string error;  ///< Empty: it went, or goes, well.
  };
  /// What is being made, and how what was made last ended. kNotFound.
  Result<Making> making(const std::string& name) const;

  /// From all hosts and the store. kNotFound. kUnavailable: a host that may have it is down.
  Result<void> remove(const std::string& name, Deadline deadline);

  /// Compares the RAM file on every host with what the store has; returns one sentence for each
  /// host where they differ. kNotFound.
  Result<std::vector<std::string>> verify(const std::string& name, Deadline deadline);

 private:
  static constexpr std::size_t kMakingMax = 32;

  std::vector<std::string> hosts_up() const;
  void drop_ended() REQUIRES(mutex_);

  BusServer& bus_;
  FleetState& fleet_;
  mutable Mutex mutex_;
  struct Work {
    Making making;
    std::jthread thread;
  };
  std::map<std::string, std::shared_ptr<Work>> works_ GUARDED_BY(mutex_);  // By name.
};

}  // namespace samepage::control
