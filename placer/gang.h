#pragma once

#include <span>
#include <string>
#include <string_view>

#include "core/result.h"
#include "placer/fleet.h"
#include "placer/plan.h"
#include "placer/planner.h"

namespace samepage::placer {

/// The most VMs of one gang.
inline constexpr std::size_t kGangMax = 64;

/// The plan that moves several VMs to one host because an administrator said so, in the order given
/// and whatever it gains. Each finds at the target not only the guests there but also the pages of
/// those that went before it, so twins cost what one of them costs, and a little (see "A gang goes
/// one by one" in docs/design-notes.md). Room is counted as if each had arrived before the next.
/// kInvalid: none or more than kGangMax are named, or one of them twice. Else as plan_move(), for
/// the first VM that cannot be moved.
Result<Plan> plan_gang(const Fleet& fleet, std::span<const std::string> vms,
                       std::string_view target, const MigrateMode& mode,
                       const PlanOptions& options);

}  // namespace samepage::placer
