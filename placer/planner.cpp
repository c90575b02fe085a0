// Placement for sharing is bin packing with overlapping items: a set of VMs needs the size of the
// *union* of their pages. It is strongly NP-hard and has no useful general bound, so the plan
// improves what is there, greedily, and every step pays for itself.
//
// A move's gain is what the VM has in common with the target's VMs less what it has in common with
// its neighbours. Both terms are common(v, S) = |v and union(S)|, which never grows when S loses a
// VM. Two things follow.
//   - Swaps. While u is on the target, v leaves it, so u's gain in a swap is at most its gain
//   alone,
//     and v's likewise. A swap is therefore worth a look only where moves alone are worth it but
//     find no room, and the sum of the two gains alone bounds it from above: most pairs are
//     dismissed by one addition.
//   - Groups. Twins on one host hold each other there: each alone gains nothing elsewhere, because
//     it loses the other. Together they lose only what the *group* shares with those who stay. The
//     groups that are tried start with one VM and take in, one by one, the neighbour with which the
//     group has most in common.
// So singles come first, then swaps, then groups, and after each success singles again; the best
// gain per move wins, ties go to the lower number, and so the plan is deterministic.
//
// Cost: with H hosts and V VMs, V*H comparisons at first and about V of them after each move;
// swaps and groups only once no single move is left.

#include "placer/planner.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include <fmt/format.h>

#include "placer/explain.h"
#include "placer/gain.h"
#include "placer/placement.h"

namespace samepage::placer {
namespace {

struct Step {
  std::size_t vm = 0;
  std::size_t target = 0;
};

enum class Kind : std::uint8_t { kNone, kAlone, kSwap, kTogether };

/// Moves that belong together, in the order in which they fit.
struct Candidate {
  Kind kind = Kind::kNone;
  std::vector<Step> steps;
  Gain gain;
};

/// VMs of one host that might move together, and what they share with those who stay.
struct Group {
  std::vector<std::size_t> members;
  Estimate held_back;
};

class Planner {
 public:
  Planner(const Fleet& fleet, const PlanOptions& options)
      : options_(options),
        placement_(fleet, options),
        groups_(fleet.hosts.size()),
        grouped_at_(fleet.hosts.size(), SIZE_MAX) {}

  Plan run();

 private:
  Candidate next();
  Candidate best_alone();
  Candidate best_swap();
  Candidate best_together();
  void consider_swap(std::size_t u, std::size_t v, Candidate& best);
  void consider_group(const Group& group, std::size_t source, Candidate& best);
  void consider_target(const Group& group, std::size_t target, Candidate& best);
  bool order_swap(std::size_t u, std::size_t v, Candidate& swap);
  const std::vector<Group>& groups_of(std::size_t host);
  void grow(std::size_t first, std::set<std::vector<std::size_t>>& seen, std::vector<Group>& found);
  std::vector<std::size_t> movable_on(std::size_t host) const;
  std::size_t closest_to(const PageUnion& pages, const std::vector<std::size_t>& candidates) const;
  bool is_better(const Gain& gain, const Candidate& best) const {
    return judge(gain, options_) == Worth::kYes && gain.each() > best.gain.each();
  }
  std::string explain(Kind kind, const Step& step, const std::vector<std::size_t>& members);
  void take(const Candidate& candidate, Plan& plan);
  std::string summarize(const Plan& plan);

  PlanOptions options_;
  Placement placement_;
  std::vector<std::vector<Group>> groups_;
  std::vector<std::size_t> grouped_at_;  // The host's version for which groups_ were made.
};

std::uint64_t rounded(double pages) {
  return static_cast<std::uint64_t>(std::llround(std::max(pages, 0.0)));
}

Plan Planner::run() {
  Plan plan;
  plan.shared_before_pages = rounded(placement_.shared_pages());
  while (plan.moves.size() < options_.moves_max) {
    const Candidate candidate = next();
    if (candidate.kind == Kind::kNone) break;
    if (plan.moves.size() + candidate.steps.size() > options_.moves_max) break;
    take(candidate, plan);
  }
  plan.shared_after_pages = rounded(placement_.shared_pages());

  std::set<VmId> moved;
  for (const PlannedMove& move : plan.moves) moved.insert(move.vm);
  for (std::size_t vm = 0; vm < placement_.vm_count(); ++vm) {
    const Vm& info = placement_.vm(vm);
    if (moved.contains(info.id)) continue;
    plan.stays.push_back({.vm = info.id,
                          .name = info.name,
                          .host = info.host,
                          .reason = why_stays(placement_, vm, options_)});
  }
  plan.summary = summarize(plan);
  return plan;
}

Candidate Planner::next() {
  Candidate found = best_alone();
  if (found.kind == Kind::kNone) found = best_swap();
  if (found.kind == Kind::kNone) found = best_together();
  return found;
}

Candidate Planner::best_alone() {
  std::vector<Candidate> found;
  for (std::size_t vm = 0; vm < placement_.vm_count(); ++vm) {
    if (!placement_.may_move(vm)) continue;
    for (std::size_t target = 0; target < placement_.host_count(); ++target) {
      if (target == placement_.host_of(vm) || !placement_.may_receive(target)) continue;
      const Gain gain = gain_alone(placement_, vm, target);
      if (judge(gain, options_) != Worth::kYes) continue;
      found.push_back(
          {.kind = Kind::kAlone, .steps = {{.vm = vm, .target = target}}, .gain = gain});
    }
  }
  std::stable_sort(found.begin(), found.end(), [](const Candidate& a, const Candidate& b) {
    return a.gain.pages > b.gain.pages;
  });
  for (Candidate& candidate : found) {
    const Step& step = candidate.steps.front();
    if (placement_.room(std::array{step.vm}, step.target).fits()) return std::move(candidate);
  }
  return {};
}

Candidate Planner::best_swap() {
  Candidate best;
  for (std::size_t u = 0; u < placement_.vm_count(); ++u) {
    if (!placement_.may_move(u)) continue;
    for (std::size_t v = u + 1; v < placement_.vm_count(); ++v) {
      if (!placement_.may_move(v) || placement_.host_of(u) == placement_.host_of(v)) continue;
      consider_swap(u, v, best);
    }
  }
  return best;
}

void Planner::consider_swap(std::size_t u, std::size_t v, Candidate& best) {
  const std::size_t source = placement_.host_of(u);
  const std::size_t target = placement_.host_of(v);
  Gain bound = gain_alone(placement_, u, target);
  bound.pages += gain_alone(placement_, v, source).pages;
  bound.moves = 2;
  if (bound.each() < static_cast<double>(options_.gain_pages_min)) return;
  if (bound.each() <= best.gain.each()) return;

  const Estimate u_there = placement_.pages_without(v).common(placement_.vm(u));
  const Estimate v_there = placement_.pages_without(u).common(placement_.vm(v));
  const Gain u_gain = gain_between(u_there, placement_.common(u, source));
  const Gain v_gain = gain_between(v_there, placement_.common(v, target));
  const auto lacking = [&](std::size_t vm, const Estimate& there) {
    const auto unique = static_cast<double>(placement_.vm(vm).fingerprint->counts().unique);
    return std::max(0.0, unique - there.pages);
  };
  const Gain gain{.pages = u_gain.pages + v_gain.pages,
                  .doubt = std::hypot(u_gain.doubt, v_gain.doubt),
                  .cost = lacking(u, u_there) + lacking(v, v_there),
                  .moves = 2};
  if (!is_better(gain, best)) return;
  Candidate swap{.kind = Kind::kSwap, .steps = {}, .gain = gain};
  if (order_swap(u, v, swap)) best = std::move(swap);
}

// Whoever goes first must fit beside the other, who is still there.
bool Planner::order_swap(std::size_t u, std::size_t v, Candidate& swap) {
  for (const auto& [first, second] : {std::pair(u, v), std::pair(v, u)}) {
    const std::array arriving{first};
    const std::array leaving{second};
    const std::size_t source = placement_.host_of(first);
    const std::size_t target = placement_.host_of(second);
    const bool fits = placement_.room_on_arrival(arriving, target).fits() &&
                      placement_.room_at_the_end(arriving, target, leaving).fits() &&
                      placement_.room_on_arrival(leaving, source, arriving).fits() &&
                      placement_.room_at_the_end(leaving, source, arriving).fits();
    if (!fits) continue;
    swap.steps = {{.vm = first, .target = target}, {.vm = second, .target = source}};
    return true;
  }
  return false;
}

Candidate Planner::best_together() {
  Candidate best;
  for (std::size_t source = 0; source < placement_.host_count(); ++source) {
    if (!placement_.may_receive(source)) continue;
    for (const Group& group : groups_of(source)) {
      consider_group(group, source, best);
    }
  }
  return best;
}

void Planner::consider_group(const Group& group, std::size_t source, Candidate& best) {
  for (std::size_t target = 0; target < placement_.host_count(); ++target) {
    if (target == source || !placement_.may_receive(target)) continue;
    consider_target(group, target, best);
  }
}

void Planner::consider_target(const Group& group, std::size_t target, Candidate& best) {
  double bound = -group.held_back.pages;
  for (const std::size_t vm : group.members) bound += placement_.common(vm, target).pages;
  const auto size = static_cast<double>(group.members.size());
  const double least = std::max(static_cast<double>(options_.gain_pages_min), best.gain.each());
  if (bound < least * size) return;

  const std::vector<const Vm*> members = placement_.vms(group.members);
  const PageUnion pages(members);
  const Estimate there = placement_.pages(target).common(pages);
  Gain gain = gain_between(there, group.held_back);
  gain.moves = group.members.size();
  gain.cost = std::max(0.0, static_cast<double>(pages.footprint()) - there.pages);
  if (!is_better(gain, best) || !placement_.room(group.members, target).fits()) return;

  best = {.kind = Kind::kTogether, .steps = {}, .gain = gain};
  for (const std::size_t vm : group.members) best.steps.push_back({.vm = vm, .target = target});
}

const std::vector<Group>& Planner::groups_of(std::size_t host) {
  std::vector<Group>& groups = groups_.at(host);
  if (grouped_at_.at(host) == placement_.version(host)) return groups;
  grouped_at_.at(host) = placement_.version(host);
  groups.clear();
  std::set<std::vector<std::size_t>> seen;
  for (const std::size_t first : movable_on(host)) grow(first, seen, groups);
  return groups;
}

std::vector<std::size_t> Planner::movable_on(std::size_t host) const {
  std::vector<std::size_t> movable;
  for (const std::size_t vm : placement_.on(host)) {
    if (placement_.may_move(vm)) movable.push_back(vm);
  }
  return movable;
}

std::size_t Planner::closest_to(const PageUnion& pages,
                                const std::vector<std::size_t>& candidates) const {
  std::size_t closest = candidates.front();
  double most = -1;
  for (const std::size_t vm : candidates) {
    const double common = pages.common(placement_.vm(vm)).pages;
    if (common <= most) continue;
    closest = vm;
    most = common;
  }
  return closest;
}

void Planner::grow(std::size_t first, std::set<std::vector<std::size_t>>& seen,
                   std::vector<Group>& found) {
  const std::size_t host = placement_.host_of(first);
  std::vector<std::size_t> outside = movable_on(host);
  std::vector<std::size_t> members{first};
  PageUnion pages(placement_.vms(members));
  std::erase(outside, first);
  while (!outside.empty() && members.size() < options_.group_max) {
    const std::size_t closest = closest_to(pages, outside);
    members.push_back(closest);
    pages.add(placement_.vm(closest));
    std::erase(outside, closest);
    std::vector<std::size_t> sorted = members;
    std::sort(sorted.begin(), sorted.end());
    if (!seen.insert(sorted).second) continue;
    const PageUnion stay_behind(placement_.vms_on(host, sorted));
    found.push_back({.members = std::move(sorted), .held_back = stay_behind.common(pages)});
  }
}

std::string Planner::explain(Kind kind, const Step& step, const std::vector<std::size_t>& members) {
  switch (kind) {
    case Kind::kNone:
      break;
    case Kind::kAlone:
      return why_alone(placement_, step.vm, step.target);
    case Kind::kTogether:
      return why_together(placement_, members, step.target);
    case Kind::kSwap:
      return why_swapped(placement_, step.vm,
                         step.vm == members.front() ? members.back() : members.front());
  }
  return {};
}

void Planner::take(const Candidate& candidate, Plan& plan) {
  std::vector<std::string> reasons;
  std::vector<std::size_t> members;
  for (const Step& step : candidate.steps) members.push_back(step.vm);
  for (const Step& step : candidate.steps) {
    reasons.push_back(explain(candidate.kind, step, members));
  }
  for (std::size_t i = 0; i < candidate.steps.size(); ++i) {
    const Step& step = candidate.steps[i];
    const Vm& vm = placement_.vm(step.vm);
    const Gain gain = gain_alone(placement_, step.vm, step.target);
    plan.moves.push_back({.vm = vm.id,
                          .name = vm.name,
                          .sharing_domain = vm.sharing_domain,
                          .source = vm.host,
                          .target = placement_.host(step.target).name,
                          .reason = std::move(reasons[i]),
                          .gain_pages = std::llround(gain.pages),
                          .cost_pages = rounded(gain.cost)});
    placement_.move(step.vm, step.target);
  }
}

std::string Planner::summarize(const Plan& plan) {
  const auto before = mib_text(static_cast<double>(plan.shared_before_pages));
  const auto after = mib_text(static_cast<double>(plan.shared_after_pages));
  if (!plan.moves.empty()) {
    return fmt::format("{} {} the predicted sharing from {} to {}", plan.moves.size(),
                       plan.moves.size() == 1 ? "move raises" : "moves raise", before, after);
  }
  std::size_t hosts_up = 0;
  for (std::size_t host = 0; host < placement_.host_count(); ++host) {
    if (placement_.may_receive(host)) ++hosts_up;
  }
  if (hosts_up < 2) return fmt::format("nothing to do: {} of the hosts is up", hosts_up);

  // The VM that comes closest to a move stands for all.
  const Stay* closest = nullptr;
  double closest_gain = 0;
  for (std::size_t vm = 0; vm < placement_.vm_count(); ++vm) {
    if (!placement_.may_move(vm)) continue;
    for (std::size_t target = 0; target < placement_.host_count(); ++target) {
      if (target == placement_.host_of(vm) || !placement_.may_receive(target)) continue;
      const Gain gain = gain_alone(placement_, vm, target);
      if (gain.pages <= closest_gain) continue;
      closest_gain = gain.pages;
      closest = &plan.stays.at(vm);
    }
  }
  if (closest != nullptr) return "nothing is worth moving: " + closest->reason;
  return fmt::format("nothing is worth moving: no VM would share more elsewhere than the {} of now",
                     before);
}

}  // namespace

Plan plan(const Fleet& fleet, const PlanOptions& options) {
  return Planner(fleet, options).run();
}

Result<Plan> plan_move(const Fleet& fleet, std::string_view vm_name, std::string_view target_name,
                       const PlanOptions& options) {
  const Vm* const named = TRY(fleet.named(vm_name));
  const Host* const to = fleet.find_host(target_name);
  if (to == nullptr) {
    return fail(Errc::kNotFound,
                fmt::format("no host named {}; `samepage hosts` lists them", target_name));
  }
  if (named->host == to->name) {
    return fail(Errc::kInvalid, fmt::format("{} is on {} already", named->name, to->name));
  }
  const Host* const from = fleet.find_host(named->host);
  for (const Host* host : {from, to}) {
    if (host->state == HostState::kUp) continue;
    return fail(Errc::kUnavailable,
                fmt::format("{} is down: its agent does not report", host->name));
  }
  if (!named->copy_on.empty()) {
    return fail(Errc::kInvalid, fmt::format("{} has a copy on {}: a migration goes on, or left it",
                                            named->name, named->copy_on));
  }
  if (named->state != VmState::kRunning && named->state != VmState::kPaused) {
    return fail(Errc::kInvalid,
                fmt::format("{} neither runs nor is paused; it cannot be moved live", named->name));
  }

  Placement placement(fleet, options);
  const auto vm = static_cast<std::size_t>(named - fleet.vms.data());
  const auto target = static_cast<std::size_t>(to - fleet.hosts.data());
  const Placement::Room room = placement.room(std::array{vm}, target);
  if (!room.fits()) {
    return fail(Errc::kInvalid,
                fmt::format("{} has no room for {}: it brings {} and {} are free", to->name,
                            named->name, mib_text(static_cast<double>(room.needed)),
                            mib_text(static_cast<double>(room.free))));
  }
  Plan plan;
  plan.shared_before_pages = rounded(placement.shared_pages());
  const Gain gain = gain_alone(placement, vm, target);
  plan.moves.push_back({.vm = named->id,
                        .name = named->name,
                        .sharing_domain = named->sharing_domain,
                        .source = named->host,
                        .target = to->name,
                        .paused = named->state == VmState::kPaused,
                        .reason = "asked for; " + why_alone(placement, vm, target),
                        .gain_pages = std::llround(gain.pages),
                        .cost_pages = rounded(gain.cost)});
  placement.move(vm, target);
  plan.shared_after_pages = rounded(placement.shared_pages());
  plan.summary = fmt::format("{} moves from {} to {}", named->name, named->host, to->name);
  return plan;
}

}  // namespace samepage::placer
