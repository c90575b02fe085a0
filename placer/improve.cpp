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
// value per move wins, ties go to the lower number, and so the result is deterministic. What
// touches other hosts than the better ones before it gains what it would have gained alone, so one
// look at the fleet is good for many moves.
//
// Cost: each of V VMs is compared with at most P hosts (Prospects: the whole of a small fleet, the
// few most promising of a large one), and gains are kept until one of their two hosts changes. Of
// two that swap one gains enough alone, which leaves few pairs; swaps and groups are looked at only
// once no single move is left, and no more than kPairsMax of them.

#include "placer/improve.h"

#include <algorithm>
#include <array>
#include <set>
#include <utility>

#include "placer/explain.h"
#include "placer/gain.h"
#include "placer/homes.h"
#include "placer/in_parallel.h"
#include "placer/prospects.h"

namespace samepage::placer {
namespace {

constexpr std::size_t kPairsMax = 5'000'000;
constexpr std::size_t kLooksMax = 3;  // At a large fleet.

enum class Kind : std::uint8_t { kAlone, kSwap, kTogether };

/// Moves that would be worth it, small because there are many. `first` and `second`: numbers of
/// movers, or of a group. Of a swap, the second goes where the first comes from.
struct Candidate {
  double each = 0;  ///< What every move gains.
  Kind kind = Kind::kAlone;
  std::uint32_t first = 0;
  std::uint32_t second = 0;
  std::uint32_t target = 0;
};

/// A unit that may still move, and what it would gain where.
struct Mover {
  Unit unit;
  struct Kept {
    std::uint32_t target = 0;
    std::size_t source_version = 0;
    std::size_t target_version = 0;
    Gain gain;
  };
  std::vector<Kept> kept;  // By ascending target.
};

class Improver {
 public:
  Improver(Arrangement& arrangement, std::vector<bool> has_moved, const ImproveOptions& options)
      : arrangement_(arrangement),
        scene_(arrangement.scene()),
        options_(options),
        has_moved_(std::move(has_moved)),
        versions_(scene_.hosts.size(), 1),
        on_(scene_.hosts.size()) {
    const bool is_large = scene_.hosts.size() > Prospects::kAll;
    if (is_large) arrangement_.index_hosts();
    looks_left_ = is_large ? kLooksMax : 1;
    find_movers();
  }

  Decision run() {
    look();
    while (!is_full_) {
      if (take_all(alone()) || look_again() || take_all(swaps()) || take_all(groups())) continue;
      break;
    }
    return std::move(decision_);
  }

 private:
  // By their first VMs; a group that a rule keeps together goes by its first VM only.
  void find_movers() {
    for (std::uint32_t vm = 0; vm < scene_.vms.size(); ++vm) {
      const std::uint32_t host = arrangement_.host_of(vm);
      if (host == kNowhere || has_moved_[vm] || !scene_.vms[vm].why_fixed.empty()) continue;
      Unit unit = arrangement_.unit(vm);
      if (unit.vms.front() != vm || !may_move(unit)) continue;
      on_[host].push_back(static_cast<std::uint32_t>(movers_.size()));
      movers_.push_back({.unit = std::move(unit), .kept = {}});
    }
  }

  bool may_move(const Unit& unit) const {
    return std::all_of(unit.vms.begin(), unit.vms.end(), [&](std::uint32_t vm) {
      return scene_.vms[vm].why_fixed.empty() && !has_moved_[vm];
    });
  }

  bool has_moved(const Mover& mover) const { return has_moved_[mover.unit.vms.front()]; }
  std::uint32_t source_of(const Mover& mover) const {
    return arrangement_.host_of(mover.unit.vms.front());
  }
  bool may_receive(std::uint32_t host) const {
    return scene_.hosts[host].is_up && scene_.hosts[host].why_closed.empty();
  }

  void look() {
    --looks_left_;
    has_changed_ = false;
    const Prospects prospects(arrangement_);
    in_parallel(options_.threads, movers_.size(), [&](std::size_t i) {
      Mover& mover = movers_[i];
      if (has_moved(mover)) return;
      mover.kept.clear();
      for (const std::uint32_t target : prospects.of(mover.unit)) {
        mover.kept.push_back({.target = target, .gain = {}});
        refresh(mover, mover.kept.back());
      }
    });
  }

  // Hosts that changed may now be the best for units that did not think of them.
  bool look_again() {
    if (!has_changed_ || looks_left_ == 0) return false;
    look();
    return true;
  }

  void refresh(const Mover& mover, Mover::Kept& kept) const {
    const std::size_t source = versions_[source_of(mover)];
    if (kept.source_version == source && kept.target_version == versions_[kept.target]) return;
    kept.source_version = source;
    kept.target_version = versions_[kept.target];
    kept.gain = gain_of(arrangement_, mover.unit, kept.target, options_.weights);
  }

  Gain gain_alone(Mover& mover, std::uint32_t target) {
    const auto found = std::lower_bound(
        mover.kept.begin(), mover.kept.end(), target,
        [](const Mover::Kept& kept, std::uint32_t host) { return kept.target < host; });
    if (found == mover.kept.end() || found->target != target) {
      return gain_of(arrangement_, mover.unit, target, options_.weights);
    }
    refresh(mover, *found);
    return found->gain;
  }

  std::vector<Candidate> alone() {
    std::vector<Candidate> found;
    for (std::uint32_t i = 0; i < movers_.size(); ++i) {
      if (has_moved(movers_[i])) continue;
      for (Mover::Kept& kept : movers_[i].kept) {
        refresh(movers_[i], kept);
        if (judge(kept.gain, options_) != Worth::kYes) continue;
        found.push_back({.each = kept.gain.each(), .first = i, .target = kept.target});
      }
    }
    return found;
  }

  bool may_go_on() { return ++pairs_ <= kPairsMax; }

  std::vector<Candidate> swaps() {
    std::vector<Candidate> found;
    for (std::uint32_t u = 0; u < movers_.size(); ++u) {
      if (has_moved(movers_[u]) || !may_receive(source_of(movers_[u]))) continue;
      for (Mover::Kept& kept : movers_[u].kept) {
        refresh(movers_[u], kept);
        if (kept.gain.each() < options_.gain_pages_min) continue;
        for (const std::uint32_t v : on_[kept.target]) {
          if (!has_moved(movers_[v]) && may_go_on()) consider_swap(u, kept.gain, v, found);
        }
      }
    }
    return found;
  }

  void consider_swap(std::uint32_t u, const Gain& there, std::uint32_t v,
                     std::vector<Candidate>& found) {
    const std::uint32_t source = source_of(movers_[u]);
    const std::uint32_t target = source_of(movers_[v]);
    const Gain bound = there + gain_alone(movers_[v], source);
    if (bound.each() < options_.gain_pages_min) return;
    const Unit& one = movers_[u].unit;
    const Unit& other = movers_[v].unit;
    const Gain gain = gain_of(arrangement_, one, target, options_.weights, other.vms) +
                      gain_of(arrangement_, other, source, options_.weights, one.vms);
    if (judge(gain, options_) != Worth::kYes) return;
    found.push_back({.each = gain.each(),
                     .kind = Kind::kSwap,
                     .first = std::min(u, v),
                     .second = std::max(u, v),
                     .target = u < v ? target : source});
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

  std::vector<Candidate> groups() {
    std::vector<Candidate> found;
    groups_.clear();
    for (std::uint32_t source = 0; source < scene_.hosts.size(); ++source) {
      std::set<std::vector<std::uint32_t>> seen;
      const std::vector<std::uint32_t> movers = movers_on(source);
      for (const std::uint32_t first : movers) grow(first, movers, seen, found);
    }
    return found;
  }

  std::vector<std::uint32_t> movers_on(std::uint32_t host) const {
    std::vector<std::uint32_t> movers = on_[host];
    std::erase_if(movers, [&](std::uint32_t mover) { return has_moved(movers_[mover]); });
    return movers;
  }

  void grow(std::uint32_t first, std::vector<std::uint32_t> outside,
            std::set<std::vector<std::uint32_t>>& seen, std::vector<Candidate>& found) {
    std::erase(outside, first);
    Unit group = movers_[first].unit;
    std::set<std::uint32_t> targets = targets_of(movers_[first]);
    while (!outside.empty() && group.vms.size() < options_.group_max) {
      const auto closest =
          std::max_element(outside.begin(), outside.end(), [&](std::uint32_t a, std::uint32_t b) {
            return scene_.common(group.demand.cells, movers_[a].unit.demand.cells) <
                   scene_.common(group.demand.cells, movers_[b].unit.demand.cells);
          });
      const Mover& joins = movers_[*closest];
      std::vector<std::uint32_t> members = group.vms;
      members.insert(members.end(), joins.unit.vms.begin(), joins.unit.vms.end());
      std::sort(members.begin(), members.end());
      targets.merge(targets_of(joins));
      outside.erase(closest);
      group = arrangement_.unit_of(members);
      if (seen.insert(std::move(members)).second) consider_group(group, targets, found);
    }
  }

  static std::set<std::uint32_t> targets_of(const Mover& mover) {
    std::set<std::uint32_t> targets;
    for (const Mover::Kept& kept : mover.kept) targets.insert(kept.target);
    return targets;
  }

  void consider_group(const Unit& group, const std::set<std::uint32_t>& targets,
                      std::vector<Candidate>& found) {
    const std::size_t before = found.size();
    for (const std::uint32_t target : targets) {
      if (!may_go_on()) break;
      const Gain gain = gain_of(arrangement_, group, target, options_.weights);
      if (judge(gain, options_) != Worth::kYes) continue;
      found.push_back({.each = gain.each(),
                       .kind = Kind::kTogether,
                       .first = static_cast<std::uint32_t>(groups_.size()),
                       .target = target});
    }
    if (found.size() > before) groups_.push_back(group);
  }

  const Unit& first_of(const Candidate& candidate) const {
    const bool together = candidate.kind == Kind::kTogether;
    return together ? groups_[candidate.first] : movers_[candidate.first].unit;
  }

  // Best first; whoever's hosts a better one has touched waits for the next look.
  bool take_all(std::vector<Candidate> candidates) {
    std::stable_sort(candidates.begin(), candidates.end(),
                     [](const Candidate& a, const Candidate& b) { return a.each > b.each; });
    const std::size_t before = decision_.steps.size();
    std::set<std::uint32_t> touched;
    for (Candidate& candidate : candidates) {
      const Unit& unit = first_of(candidate);
      const std::uint32_t source = arrangement_.host_of(unit.vms.front());
      const std::uint32_t target = candidate.target;
      if (touched.contains(source) || touched.contains(target) || !can_take(candidate)) continue;
      const bool swaps = candidate.kind == Kind::kSwap;
      const std::size_t moves =
          unit.vms.size() + (swaps ? movers_[candidate.second].unit.vms.size() : 0);
      is_full_ = decision_.steps.size() + moves > options_.moves_max;
      if (is_full_) break;
      touched.insert({source, target});
      swaps ? swap(movers_[candidate.first].unit, movers_[candidate.second].unit)
            : take(unit, target, why_moved(arrangement_, unit, target));
      ++versions_[source];
      ++versions_[target];
      has_changed_ = true;
    }
    return decision_.steps.size() > before;
  }

  bool can_take(Candidate& candidate) const {
    const Unit& first = first_of(candidate);
    if (candidate.kind != Kind::kSwap) return !arrangement_.obstacle(first, candidate.target);
    const Unit& second = movers_[candidate.second].unit;
    if (can_go_first(first, second)) return true;
    if (!can_go_first(second, first)) return false;
    std::swap(candidate.first, candidate.second);
    return true;
  }

  // Reasons first: they speak of the fleet before the moves.
  void swap(const Unit& first, const Unit& second) {
    const std::uint32_t source = arrangement_.host_of(first.vms.front());
    const std::uint32_t target = arrangement_.host_of(second.vms.front());
    const std::string why = why_swapped(arrangement_, first, second);
    const std::string why_back = why_swapped(arrangement_, second, first);
    take(first, target, why);
    take(second, source, why_back);
  }

  void take(const Unit& unit, std::uint32_t target, const std::string& why) {
    Homes homes(arrangement_, {.weights = options_.weights, .moves_max = SIZE_MAX});
    homes.move(unit, target, why, decision_);
    for (const std::uint32_t vm : unit.vms) has_moved_[vm] = true;
  }

  Arrangement& arrangement_;
  const Scene& scene_;
  const ImproveOptions& options_;
  std::vector<bool> has_moved_;
  std::vector<std::size_t> versions_;  // By host; rises when its VMs change.
  std::vector<Mover> movers_;
  std::vector<std::vector<std::uint32_t>> on_;  // Numbers of movers, by the host where they began.
  std::vector<Unit> groups_;
  std::size_t looks_left_ = 1;
  std::size_t pairs_ = 0;
  bool has_changed_ = false;  // Since the last look.
  bool is_full_ = false;      // The plan: what comes next has too many moves for it.
  Decision decision_;
};

}  // namespace

Decision improve(Arrangement& arrangement, std::vector<bool> has_moved,
                 const ImproveOptions& options) {
  return Improver(arrangement, std::move(has_moved), options).run();
}

Stayed why_stays(const Arrangement& arrangement, const Prospects& prospects, std::uint32_t vm,
                 const ImproveOptions& options) {
  const Scene& scene = arrangement.scene();
  if (!scene.vms[vm].why_fixed.empty()) {
    return {.reason = scene.vms[vm].why_fixed, .cause = "fixed"};
  }
  const Unit unit = arrangement.unit(vm);
  std::uint32_t best = kNowhere;
  Gain most;
  for (const std::uint32_t host : prospects.of(unit)) {
    const Gain gain = gain_of(arrangement, unit, host, options.weights);
    if (best != kNowhere && gain.value <= most.value) continue;
    best = host;
    most = gain;
  }
  if (best == kNowhere) return {.reason = "no other host is up", .cause = "no_host"};
  return {.reason = why_not_there(arrangement, unit, best, most, options),
          .cause = cause_not_there(arrangement, unit, best, most, options),
          .best = best,
          .gain_pages = most.value};
}

}  // namespace samepage::placer
