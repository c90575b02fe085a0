#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "core/result.h"
#include "placer/class_model.h"
#include "placer/fleet.h"
#include "placer/plan.h"
#include "placer/rules.h"
#include "placer/usage.h"

namespace samepage::placer {

struct PlanOptions {
  Goal goal = Goal::kSharing;
  std::optional<Weights> weights = {};  ///< Instead of the goal's.

  std::uint64_t gain_pages_min = 1'024;  ///< These two as in improve.h.
  double cost_per_gain_max = 16;

  double headroom = 0.10;  ///< The part of every host's memory that a plan leaves free at its end.
  double load_max = 0.75;  ///< The part of a host's CPU and network up to which it receives VMs.
  std::size_t moves_max = 100;
  std::size_t group_max = 8;

  std::vector<Rule> rules = {};
  std::vector<ClassModel> class_models = {};  ///< For moves between hosts of different classes.
  std::map<std::string, std::string> resting =
      {};  ///< VMs, by UUID, that must stay for now, and why.
  std::chrono::milliseconds fingerprint_age_max{std::chrono::minutes(10)};
  HotspotOptions hotspot = {};

  /// For kHosts: time to look for a packing of the whole fleet; without it, hosts that are little
  /// used are emptied one by one.
  std::chrono::milliseconds search{0};
  std::uint64_t seed = 1;
  unsigned threads = 2;
};

/// Proposes moves, each with its reason, and says of every other VM why it stays. In this order:
/// hosts in maintenance are emptied and broken rules mended; hotspots are relieved; then the goal
/// is pursued. Pure: the same fleet and options give the same plan, but for a search that ends by
/// time.
///
/// What it promises of the moves, taken one after the other: a VM arrives only where it fits with
/// every page of its own, because nothing that arrived during the plan is counted as merged yet; at
/// the plan's end the predicted footprint leaves the headroom free on every host that received a
/// VM; sharing is counted inside domains only; a gain counts only when its 95 % interval is above
/// zero. Hosts that are down, VMs that do not run, that have no fresh fingerprint, or that have a
/// copy on another host are left alone. kInvalid: rules that cannot hold; the message names them.
Result<Plan> plan(const Fleet& fleet, const PlanOptions& options);

/// The plan that moves one VM because an administrator said so, whatever it gains. kNotFound: no
/// such VM or host. kUnavailable: one of the two hosts is down. kInvalid: the name is ambiguous,
/// the VM is there already, does not run or has a copy elsewhere, a rule forbids it, or the host
/// has no room.
Result<Plan> plan_move(const Fleet& fleet, std::string_view vm, std::string_view target,
                       const PlanOptions& options);

}  // namespace samepage::placer
