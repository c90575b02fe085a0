#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "core/result.h"
#include "placer/fleet.h"
#include "placer/plan.h"

namespace samepage::placer {

struct PlanOptions {
  /// Predicted shared pages that every move must gain, on average over moves that belong together.
  std::uint64_t gain_pages_min = 1'024;

  /// Pages that may cross the wire, after dedup, for each page gained. The gain lasts as long as
  /// the VMs do, the transfer is paid once; so many to one is where the trouble stops being worth
  /// it.
  double cost_per_gain_max = 16;

  /// The part of every host's memory that a plan leaves free at its end.
  double headroom = 0.10;

  std::chrono::milliseconds fingerprint_age_max{std::chrono::minutes(10)};
  std::size_t moves_max = 100;
  std::size_t group_max = 8;  ///< VMs that may move together where none gains by moving alone.
};

/// Proposes moves that raise the fleet's predicted sharing, each with its reason, and says of every
/// other VM why it stays. Pure: the same fleet and options give the same plan.
///
/// What it promises of the moves, taken one after the other: each VM moves at most once; a VM
/// arrives only where it fits with every page of its own, because nothing that arrived during the
/// plan is counted as merged yet; at the plan's end the predicted footprint leaves the headroom
/// free on every host that received a VM; sharing is counted inside domains only; a gain counts
/// only when its 95 % interval is above zero. Hosts that are down, VMs that do not run, that have
/// no fresh fingerprint, or that have a copy on another host are left alone.
Plan plan(const Fleet& fleet, const PlanOptions& options);

/// The plan that moves one VM because an administrator said so, whatever it gains. kNotFound: no
/// such VM or host. kUnavailable: one of the two hosts is down. kInvalid: the name is ambiguous,
/// the VM is there already, does not run or has a copy elsewhere, or the host has no room.
Result<Plan> plan_move(const Fleet& fleet, std::string_view vm, std::string_view target,
                       const PlanOptions& options);

}  // namespace samepage::placer
