#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "core/result.h"
#include "placer/scenario.h"

namespace samepage::placer {

struct SimulatedMove {
  double started_s = 0;
  double ended_s = 0;
  std::string vm;
  std::string source;
  std::string target;
  std::string reason;
  double bytes = 0;
};

struct SimulationReport {
  std::size_t vms_placed = 0;
  std::size_t vms_refused = 0;  ///< No host took them when they arrived.
  std::size_t hosts_used = 0;   ///< At the end.
  std::size_t hosts_freed = 0;  ///< By consolidation.
  std::size_t intervals = 0;
  std::size_t overloaded_first = 0;      ///< Hosts overloaded in the interval with most of them.
  std::size_t overloaded_last = 0;       ///< In the last interval.
  std::size_t overloaded_intervals = 0;  ///< Sum over intervals.
  double cleared_at_s = 0;               ///< After this no host was overloaded; -1: never cleared.
  std::size_t ping_pongs = 0;            ///< Moves to a host that the VM had left within the hour.
  std::size_t lies_left_out = 0;
  double bytes_moved = 0;
  double shared_pages = 0;  ///< At the end: pages of VMs less merged pages of hosts.
  std::vector<SimulatedMove> moves;
  std::vector<std::string> notes;  ///< What was left out of decisions, and why; bounded.
};

/// Runs a scenario through the decision code of the real placer, on a clock of its own. The same
/// scenario gives the same report. kInvalid: the scenario contradicts itself; the message says how.
Result<SimulationReport> simulate(const Scenario& scenario);

}  // namespace samepage::placer
