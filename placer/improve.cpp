// Placement for sharing is bin packing with overlapping items: a set of VMs needs the size of the
// *union* of their pages. It is strongly NP-hard, so what is there is improved, greedily, and every
// step pays for itself.
//
// A move's gain in sharing is what the VM has in common with the target's VMs less what it has in
// common with its neighbours. Both terms are common(v, S) = |v and union(S)|, which never grows
// when S loses a VM. Two things follow.
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
// value per move wins, ties go to the lower number, and so the result is deterministic.
//
// Cost: with H hosts and V VMs, V*H comparisons at first and about 2*V of them after each move,
// for gains are kept until one of their two hosts changes; swaps and groups only once no single
// move is left.

#include "placer/improve.h"

#include <algorithm>
#include <array>
#include <set>
#include <utility>

#include "placer/explain.h"
#include "placer/gain.h"
#include "placer/homes.h"

namespace samepage::placer {
namespace {

enum class Kind : std::uint8_t { kNone, kAlone, kSwap, kTogether };

struct Part {
  Unit unit;
  std::uint32_t target = 0;
};

/// Moves that belong together, in the order in which they fit.
struct Candidate {
  Kind kind = Kind::kNone;
  std::vector<Part> parts;
  Gain gain;
};

class Improver {
 public:
  Improver(Arrangement& arrangement, std::vector<bool> has_moved, const ImproveOptions& options)
      : arrangement_(arrangement),
        scene_(arrangement.scene()),
        options_(options),
        has_moved_(std::move(has_moved)),
        versions_(scene_.hosts.size(), 1),
        kept_(scene_.vms.size()) {}

  Decision run() {
    while (decision_.steps.size() < options_.moves_max) {
      const Candidate candidate = next();
      std::size_t moves = 0;
      for (const Part& part : candidate.parts) moves += part.unit.vms.size();
      if (moves == 0 || decision_.steps.size() + moves > options_.moves_max) break;
      take(candidate);
    }
    return std::move(decision_);
  }

 private:
  struct Kept {
    std::size_t source_version = 0;
    std::size_t target_version = 0;
    Gain gain;
  };

  Candidate next() {
    Candidate found = best_alone();
    if (found.kind == Kind::kNone) found = best_swap();
    if (found.kind == Kind::kNone) found = best_together();
    return found;
  }

  bool may_receive(std::uint32_t host) const {
    return scene_.hosts[host].is_up && scene_.hosts[host].why_closed.empty();
  }

  bool may_move(const Unit& unit) const {
    return std::all_of(unit.vms.begin(), unit.vms.end(), [&](std::uint32_t vm) {
      return scene_.vms[vm].why_fixed.empty() && !has_moved_[vm];
    });
  }

  // By their first VMs; a group that a rule keeps together goes by its first VM only.
  std::vector<Unit> movable() const {
    std::vector<Unit> units;
    for (std::uint32_t vm = 0; vm < scene_.vms.size(); ++vm) {
      if (arrangement_.host_of(vm) == kNowhere || has_moved_[vm]) continue;
      if (!scene_.vms[vm].why_fixed.empty()) continue;
      Unit unit = arrangement_.unit(vm);
      if (unit.vms.front() == vm && may_move(unit)) units.push_back(std::move(unit));
    }
    return units;
  }

  const Gain& gain_alone(const Unit& unit, std::uint32_t target) {
    std::vector<Kept>& row = kept_[unit.vms.front()];
    if (row.empty()) row.resize(scene_.hosts.size());
    Kept& kept = row[target];
    const std::size_t source = versions_[arrangement_.host_of(unit.vms.front())];
    if (kept.source_version != source || kept.target_version != versions_[target]) {
      kept = {.source_version = source,
              .target_version = versions_[target],
              .gain = gain_of(arrangement_, unit, target, options_.weights)};
    }
    return kept.gain;
  }

  Candidate best_alone() {
    struct Found {
      double value;
      std::size_t unit;
      std::uint32_t target;
    };
    std::vector<Found> found;
    std::vector<Unit> units = movable();
    for (std::size_t i = 0; i < units.size(); ++i) {
      const std::uint32_t source = arrangement_.host_of(units[i].vms.front());
      for (std::uint32_t target = 0; target < scene_.hosts.size(); ++target) {
        if (target == source || !may_receive(target)) continue;
        const Gain& gain = gain_alone(units[i], target);
        if (judge(gain, options_) == Worth::kYes) found.push_back({gain.each(), i, target});
      }
    }
    std::stable_sort(found.begin(), found.end(),
                     [](const Found& a, const Found& b) { return a.value > b.value; });
    for (const auto& [value, i, target] : found) {
      if (arrangement_.obstacle(units[i], target)) continue;
      const Gain gain = gain_alone(units[i], target);
      return {.kind = Kind::kAlone, .parts = {{std::move(units[i]), target}}, .gain = gain};
    }
    return {};
  }

  Candidate best_swap() {
    Candidate best;
    const std::vector<Unit> units = movable();
    for (std::size_t u = 0; u < units.size(); ++u) {
      for (std::size_t v = u + 1; v < units.size(); ++v) consider_swap(units[u], units[v], best);
    }
    return best;
  }

  void consider_swap(const Unit& u, const Unit& v, Candidate& best) {
    const std::uint32_t source = arrangement_.host_of(u.vms.front());
    const std::uint32_t target = arrangement_.host_of(v.vms.front());
    if (source == target || !may_receive(source) || !may_receive(target)) return;
    const Gain bound = gain_alone(u, target) + gain_alone(v, source);
    if (bound.each() < options_.gain_pages_min || bound.each() <= best.gain.each()) return;

    const Gain gain = gain_of(arrangement_, u, target, options_.weights, v.vms) +
                      gain_of(arrangement_, v, source, options_.weights, u.vms);
    if (judge(gain, options_) != Worth::kYes || gain.each() <= best.gain.each()) return;
    for (const auto& [first, second] : {std::pair(&u, &v), std::pair(&v, &u)}) {
      if (!can_go_first(*first, *second)) continue;
      best = {.kind = Kind::kSwap,
              .parts = {{*first, arrangement_.host_of(second->vms.front())},
                        {*second, arrangement_.host_of(first->vms.front())}},
              .gain = gain};
      return;
    }
  }

  // It must fit beside the other, who is still there.
  bool can_go_first(const Unit& first, const Unit& second) const {
    const std::uint32_t source = arrangement_.host_of(first.vms.front());
    const std::uint32_t target = arrangement_.host_of(second.vms.front());
    const double beside = arrangement_.arriving(target) + first.full_pages;
    return beside <= scene_.hosts[target].bin.capacity &&
           !arrangement_.obstacle(first, target, second.vms) &&
           !arrangement_.obstacle(second, source, first.vms);
  }

  Candidate best_together() {
    Candidate best;
    for (std::uint32_t source = 0; source < scene_.hosts.size(); ++source) {
      std::set<std::vector<std::uint32_t>> seen;
      for (const Unit& first : units_on(source)) grow(first, source, seen, best);
    }
    return best;
  }

  std::vector<Unit> units_on(std::uint32_t host) const {
    std::vector<Unit> units = movable();
    std::erase_if(units,
                  [&](const Unit& unit) { return arrangement_.host_of(unit.vms.front()) != host; });
    return units;
  }

  void grow(const Unit& first, std::uint32_t source, std::set<std::vector<std::uint32_t>>& seen,
            Candidate& best) {
    std::vector<Unit> outside = units_on(source);
    std::erase_if(outside, [&](const Unit& unit) { return unit.vms == first.vms; });
    Unit group = first;
    while (!outside.empty() && group.vms.size() < options_.group_max) {
      const auto closest =
          std::max_element(outside.begin(), outside.end(), [&](const Unit& a, const Unit& b) {
            return scene_.common(group.demand.cells, a.demand.cells) <
                   scene_.common(group.demand.cells, b.demand.cells);
          });
      std::vector<std::uint32_t> members = group.vms;
      members.insert(members.end(), closest->vms.begin(), closest->vms.end());
      std::sort(members.begin(), members.end());
      outside.erase(closest);
      group = arrangement_.unit_of(members);
      if (seen.insert(std::move(members)).second) consider_group(group, source, best);
    }
  }

  void consider_group(const Unit& group, std::uint32_t source, Candidate& best) {
    for (std::uint32_t target = 0; target < scene_.hosts.size(); ++target) {
      if (target == source || !may_receive(target)) continue;
      const Gain gain = gain_of(arrangement_, group, target, options_.weights);
      if (judge(gain, options_) != Worth::kYes || gain.each() <= best.gain.each()) continue;
      if (arrangement_.obstacle(group, target)) continue;
      best = {.kind = Kind::kTogether, .parts = {{group, target}}, .gain = gain};
    }
  }

  std::string explain(const Candidate& candidate, std::size_t part) const {
    const auto& [unit, target] = candidate.parts[part];
    if (candidate.kind != Kind::kSwap) return why_moved(arrangement_, unit, target);
    const Unit& other = candidate.parts[1 - part].unit;
    return why_swapped(arrangement_, unit, other);
  }

  // Reasons first: they speak of the fleet before the moves.
  void take(const Candidate& candidate) {
    std::vector<std::string> reasons;
    for (std::size_t i = 0; i < candidate.parts.size(); ++i) {
      reasons.push_back(explain(candidate, i));
    }
    Homes homes(arrangement_, {.weights = options_.weights, .moves_max = SIZE_MAX});
    for (std::size_t i = 0; i < candidate.parts.size(); ++i) {
      const auto& [unit, target] = candidate.parts[i];
      ++versions_[arrangement_.host_of(unit.vms.front())];
      ++versions_[target];
      homes.move(unit, target, reasons[i], decision_);
      for (const std::uint32_t vm : unit.vms) has_moved_[vm] = true;
    }
  }

  Arrangement& arrangement_;
  const Scene& scene_;
  const ImproveOptions& options_;
  std::vector<bool> has_moved_;
  std::vector<std::size_t> versions_;  // By host; rises when its VMs change.
  std::vector<std::vector<Kept>> kept_;
  Decision decision_;
};

}  // namespace

Decision improve(Arrangement& arrangement, std::vector<bool> has_moved,
                 const ImproveOptions& options) {
  return Improver(arrangement, std::move(has_moved), options).run();
}

Stayed why_stays(const Arrangement& arrangement, std::uint32_t vm, const ImproveOptions& options) {
  const Scene& scene = arrangement.scene();
  if (!scene.vms[vm].why_fixed.empty()) return {.reason = scene.vms[vm].why_fixed};
  const Unit unit = arrangement.unit(vm);
  std::uint32_t best = kNowhere;
  Gain most;
  for (std::uint32_t host = 0; host < scene.hosts.size(); ++host) {
    if (host == arrangement.host_of(vm) || !scene.hosts[host].is_up) continue;
    if (!scene.hosts[host].why_closed.empty()) continue;
    const Gain gain = gain_of(arrangement, unit, host, options.weights);
    if (best != kNowhere && gain.value <= most.value) continue;
    best = host;
    most = gain;
  }
  if (best == kNowhere) return {.reason = "no other host is up"};
  return {.reason = why_not_there(arrangement, unit, best, most, options),
          .gain_pages = std::max(0.0, most.value)};
}

}  // namespace samepage::placer
