#include "placer/gang.h"

#include <algorithm>
#include <utility>

#include <fmt/format.h>

namespace samepage::placer {
namespace {

/// `plan`, with the moves of `next`, which begins where `plan` ends.
void append(Plan& plan, Plan next) {
  if (plan.moves.empty()) plan.shared_before_pages = next.shared_before_pages;
  plan.shared_after_pages = next.shared_after_pages;
  for (PlannedMove& move : next.moves) plan.moves.push_back(std::move(move));
  for (Stay& stay : next.stays) plan.stays.push_back(std::move(stay));
}

bool moves(const Plan& plan, const VmId& vm) {
  return std::any_of(plan.moves.begin(), plan.moves.end(),
                     [&](const PlannedMove& move) { return move.vm == vm; });
}

}  // namespace

Result<Plan> plan_gang(const Fleet& fleet, std::span<const std::string> vms,
                       std::string_view target, const MigrateMode& mode,
                       const PlanOptions& options) {
  if (mode.streams > MigrateMode::kStreamsMax) {
    return fail(Errc::kInvalid,
                fmt::format("at most {} parallel connections", MigrateMode::kStreamsMax));
  }
  if (mode.time_max > MigrateMode::kTimeMax) {
    return fail(Errc::kInvalid,
                fmt::format("a deadline is at most {} seconds", MigrateMode::kTimeMax.count()));
  }
  if (mode.postcopy && mode.streams > 0) {
    return fail(Errc::kInvalid, "post-copy takes one connection; leave the parallel ones out");
  }
  if (vms.empty()) return fail(Errc::kInvalid, "name at least one VM to move");
  if (vms.size() > kGangMax) {
    return fail(Errc::kInvalid, fmt::format("at most {} VMs move in one gang", kGangMax));
  }
  Fleet after = fleet;
  Plan gang;
  for (const std::string& name : vms) {
    const VmId vm = TRY(fleet.named(name))->id;
    if (moves(gang, vm)) return fail(Errc::kInvalid, name + " is named twice");
    append(gang, TRY(plan_move(after, name, target, options)));
    const auto moved = std::find_if(after.vms.begin(), after.vms.end(),
                                    [&](const Vm& one) { return one.id == vm; });
    moved->host = std::string(target);
  }
  for (PlannedMove& move : gang.moves) move.mode = mode;
  if (gang.moves.size() == 1) {
    const PlannedMove& move = gang.moves.front();
    gang.summary = fmt::format("{} moves from {} to {}", move.name, move.source, move.target);
  } else {
    gang.summary = fmt::format("{} VMs move to {}", gang.moves.size(), target);
  }
  return gang;
}

}  // namespace samepage::placer
