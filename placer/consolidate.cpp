#include "placer/consolidate.h"

#include <algorithm>
#include <deque>
#include <map>
#include <optional>
#include <utility>

#include <fmt/format.h>

#include "core/page_count.h"

namespace samepage::placer {
namespace {

std::vector<Unit> units_on(const Arrangement& arrangement, std::uint32_t host) {
  std::vector<Unit> units;
  std::vector<std::uint32_t> seen;
  for (const std::uint32_t vm : arrangement.on(host)) {
    if (std::find(seen.begin(), seen.end(), vm) != seen.end()) continue;
    units.push_back(arrangement.unit(vm));
    seen.insert(seen.end(), units.back().vms.begin(), units.back().vms.end());
  }
  std::stable_sort(units.begin(), units.end(),
                   [](const Unit& a, const Unit& b) { return a.full_pages > b.full_pages; });
  return units;
}

void refuse(const Unit& unit, const std::string& reason, Decision& decision) {
  for (const std::uint32_t vm : unit.vms) decision.refusals.push_back({.vm = vm, .reason = reason});
}

double cost(const Decision& decision, std::size_t from) {
  double pages = 0;
  for (std::size_t i = from; i < decision.steps.size(); ++i) pages += decision.steps[i].cost_pages;
  return pages;
}

// Whether a VM came to the host because it made room elsewhere: it cannot be sent on without moving
// twice.
bool made_room_there(const Arrangement& arrangement, std::uint32_t host, const Decision& decision) {
  const Scene& scene = arrangement.scene();
  const std::vector<std::uint32_t>& vms = arrangement.on(host);
  return std::any_of(vms.begin(), vms.end(), [&](std::uint32_t vm) {
    const std::uint32_t before = scene.vms[vm].host;
    return before != host && std::find(decision.freed_hosts.begin(), decision.freed_hosts.end(),
                                       before) == decision.freed_hosts.end();
  });
}

// A VM whose new host was freed as well goes to the last one at once, when its turn comes for that:
// nobody waits for the host where it began, and nobody misses it on the one between.
void go_straight(Decision& decision) {
  std::map<std::uint32_t, std::size_t> last;
  std::vector<bool> is_left_out(decision.steps.size());
  for (std::size_t i = 0; i < decision.steps.size(); ++i) {
    Step& step = decision.steps[i];
    const auto [before, is_first] = last.try_emplace(step.vm, i);
    if (is_first) continue;
    const Step& earlier = decision.steps[before->second];
    step.source = earlier.source;
    step.reason = earlier.reason;
    step.gain_pages += earlier.gain_pages;
    is_left_out[before->second] = true;
    before->second = i;
  }
  std::vector<Step> steps;
  for (std::size_t i = 0; i < decision.steps.size(); ++i) {
    if (!is_left_out[i]) steps.push_back(std::move(decision.steps[i]));
  }
  decision.steps = std::move(steps);
}

/// Frees one host, or takes everything back and says why not.
class Freeing {
 public:
  Freeing(Arrangement& arrangement, const ConsolidationOptions& options)
      : arrangement_(arrangement),
        options_(options),
        homes_(arrangement, {.weights = {.sharing = 1, .hosts = 0.5, .balance = 0.1},
                             .moves_max = options.moves_max}) {
    // Going to an empty host frees nothing.
    for (std::uint32_t host = 0; host < arrangement.scene().hosts.size(); ++host) {
      if (arrangement.on(host).empty()) homes_.exclude(host);
    }
  }

  /// False: it was not freed.
  bool free(std::uint32_t host, Decision& decision) {
    const Scene& scene = arrangement_.scene();
    const std::size_t mark = arrangement_.mark();
    const std::size_t steps = decision.steps.size();
    const double freed = arrangement_.merged(host);
    const std::string& name = scene.hosts[host].name;
    const std::string why = fmt::format("{} uses {:.0f} % of its memory and can be freed", name,
                                        100 * arrangement_.utilisation(host).back());
    homes_.exclude(host);
    std::string why_not;
    for (const Unit& unit : units_on(arrangement_, host)) {
      if (homes_.settle_in(unit, why, decision)) continue;
      why_not = homes_.why_not(unit);
      break;
    }
    if (why_not.empty()) {
      const double pages = cost(decision, steps);
      if (pages <= options_.cost_per_freed_max * freed) {
        decision.freed_hosts.push_back(host);
        return true;
      }
      why_not = fmt::format("{:.0f} MiB would have to cross the wire to free {:.0f} MiB",
                            pages / kPagesPerMib, freed / kPagesPerMib);
    }
    arrangement_.roll_back(mark);
    decision.steps.resize(steps);
    homes_.include(host);
    for (const std::uint32_t vm : arrangement_.on(host)) {
      decision.refusals.push_back(
          {.vm = vm, .reason = fmt::format("{} cannot be freed: {}", name, why_not)});
    }
    return false;
  }

 private:
  Arrangement& arrangement_;
  ConsolidationOptions options_;
  Homes homes_;
};

class Repair {
 public:
  Repair(Arrangement& arrangement, const std::vector<Rule>& rules, std::size_t moves_max)
      : arrangement_(arrangement),
        rules_(rules),
        homes_(arrangement, {.weights = {.sharing = 0.5, .movement = 0.5, .balance = 0.5},
                             .moves_max = moves_max}) {}

  Decision run() {
    std::vector<BrokenRule> given_up;
    for (;;) {
      const std::vector<BrokenRule> broken =
          broken_rules(rules_, arrangement_.scene(), arrangement_.hosts_of());
      const auto next = std::find_if(broken.begin(), broken.end(), [&](const BrokenRule& rule) {
        return std::none_of(given_up.begin(), given_up.end(), [&](const BrokenRule& other) {
          return other.vm == rule.vm && other.rule == rule.rule;
        });
      });
      if (next == broken.end()) return std::move(decision_);
      if (!mend(*next)) given_up.push_back(*next);
    }
  }

 private:
  // The VM itself, or of two that must be apart the one that costs less; the members of a group
  // that must be together go where the others are.
  bool mend(const BrokenRule& broken) {
    const std::string why = fmt::format("rule {}: {}", broken.rule, broken.what);
    const Rule& rule = *std::find_if(rules_.begin(), rules_.end(),
                                     [&](const Rule& each) { return each.name == broken.rule; });
    if (rule.kind == Rule::Kind::kTogether) return gather(rule, why);
    std::vector<std::uint32_t> movers{broken.vm};
    if (rule.kind == Rule::Kind::kApart) {
      const std::uint32_t other = same_host(rule, broken.vm);
      if (other != kNowhere) movers.push_back(other);
      std::stable_sort(movers.begin(), movers.end(), [&](std::uint32_t a, std::uint32_t b) {
        return arrangement_.unit(a).full_pages < arrangement_.unit(b).full_pages;
      });
    }
    for (const std::uint32_t vm : movers) {
      if (homes_.settle_in(arrangement_.unit(vm), why, decision_)) return true;
    }
    const Unit unit = arrangement_.unit(broken.vm);
    refuse(unit, why + ", but " + homes_.why_not(unit), decision_);
    return false;
  }

  std::uint32_t same_host(const Rule& rule, std::uint32_t vm) const {
    for (const std::string& name : rule.vms) {
      const std::uint32_t other = arrangement_.scene().find_vm(name);
      if (other == kNowhere || other == vm) continue;
      if (arrangement_.host_of(other) == arrangement_.host_of(vm)) return other;
    }
    return kNowhere;
  }

  // To the host that needs fewest pages moved.
  bool gather(const Rule& rule, const std::string& why) {
    std::map<std::uint32_t, std::vector<std::uint32_t>> by_host;
    for (const std::string& name : rule.vms) {
      const std::uint32_t vm = arrangement_.scene().find_vm(name);
      if (vm != kNowhere && arrangement_.host_of(vm) != kNowhere) {
        by_host[arrangement_.host_of(vm)].push_back(vm);
      }
    }
    std::vector<std::pair<double, std::uint32_t>> hosts;
    for (const auto& [host, members] : by_host) {
      hosts.emplace_back(-arrangement_.unit_of(members).full_pages, host);
    }
    std::sort(hosts.begin(), hosts.end());
    for (const auto& [pages, host] : hosts) {
      if (gather_on(host, by_host, why)) return true;
    }
    const Unit unit = arrangement_.unit(by_host.begin()->second.front());
    refuse(unit, why + ", but no host has room for all of them", decision_);
    return false;
  }

  bool gather_on(std::uint32_t target,
                 const std::map<std::uint32_t, std::vector<std::uint32_t>>& by_host,
                 const std::string& why) {
    const std::size_t mark = arrangement_.mark();
    const std::size_t steps = decision_.steps.size();
    for (const auto& [host, members] : by_host) {
      if (host == target) continue;
      const Unit unit = arrangement_.unit_of(members);
      if (!homes_.is_movable(unit) || arrangement_.obstacle(unit, target)) {
        arrangement_.roll_back(mark);
        decision_.steps.resize(steps);
        return false;
      }
      homes_.move(unit, target, why, decision_);
    }
    return true;
  }

  Arrangement& arrangement_;
  const std::vector<Rule>& rules_;
  Homes homes_;
  Decision decision_;
};

class Sequencer {
 public:
  Sequencer(Arrangement& arrangement, const std::vector<std::uint32_t>& targets,
            std::size_t moves_max)
      : arrangement_(arrangement),
        targets_(targets),
        moves_max_(moves_max),
        homes_(arrangement,
               {.weights = {.sharing = 0, .movement = 1, .balance = 1}, .moves_max = moves_max}),
        waiting_(arrangement.scene().hosts.size()) {}

  Decision run() {
    std::vector<std::uint32_t> all;
    for (std::uint32_t vm = 0; vm < targets_.size(); ++vm) {
      if (wants_away(vm)) all.push_back(vm);
    }
    for (const std::uint32_t vm : all) {
      if (!move_if_it_fits(vm)) waiting_[targets_[vm]].push_back(vm);
    }
    move_all_that_fit();
    for (const std::uint32_t vm : smallest_waiting(all)) {
      if (wants_away(vm)) park(vm);
    }
    for (const std::uint32_t vm : all) {
      if (wants_away(vm)) refuse_to_move(vm);
    }
    return std::move(decision_);
  }

 private:
  static constexpr std::size_t kParkingsMax = 64;

  bool wants_away(std::uint32_t vm) const {
    return targets_[vm] != kNowhere && targets_[vm] != arrangement_.host_of(vm) &&
           arrangement_.scene().vms[vm].why_fixed.empty();
  }

  bool has_moves_left() const { return decision_.steps.size() < moves_max_; }

  bool move_if_it_fits(std::uint32_t vm) {
    const Unit unit = arrangement_.unit_of(std::span(&vm, 1));
    if (!has_moves_left() || arrangement_.obstacle(unit, targets_[vm])) return false;
    left_.push_back(arrangement_.host_of(vm));
    homes_.move(unit, targets_[vm], "its place in the plan", decision_);
    return true;
  }

  // Whoever waits for a host that somebody has left.
  void move_all_that_fit() {
    while (!left_.empty() && has_moves_left()) {
      const std::uint32_t host = left_.front();
      left_.pop_front();
      std::erase_if(waiting_[host], [&](std::uint32_t vm) { return move_if_it_fits(vm); });
    }
  }

  // They find a place most easily.
  std::vector<std::uint32_t> smallest_waiting(std::vector<std::uint32_t> vms) const {
    std::erase_if(vms, [&](std::uint32_t vm) { return !wants_away(vm); });
    std::stable_sort(vms.begin(), vms.end(), [&](std::uint32_t a, std::uint32_t b) {
      return arrangement_.scene().vms[a].full_pages < arrangement_.scene().vms[b].full_pages;
    });
    if (vms.size() > kParkingsMax) vms.resize(kParkingsMax);
    return vms;
  }

  // On a third host, so that others can move; back again when it does not get home that way.
  void park(std::uint32_t vm) {
    const Unit unit = arrangement_.unit_of(std::span(&vm, 1));
    const Scene& scene = arrangement_.scene();
    const auto home = has_moves_left() ? homes_.best(unit) : std::nullopt;
    if (!home) return;
    const std::size_t mark = arrangement_.mark();
    const std::size_t steps = decision_.steps.size();
    left_ = {arrangement_.host_of(vm)};
    homes_.move(unit, home->host,
                fmt::format("{} waits on {} until there is room on {}", scene.vms[vm].name,
                            scene.hosts[home->host].name, scene.hosts[targets_[vm]].name),
                decision_);
    const auto waited = waiting_;
    move_all_that_fit();
    if (!wants_away(vm)) return;
    arrangement_.roll_back(mark);
    decision_.steps.resize(steps);
    waiting_ = waited;
  }

  void refuse_to_move(std::uint32_t vm) {
    const Unit unit = arrangement_.unit_of(std::span(&vm, 1));
    const auto obstacle = arrangement_.obstacle(unit, targets_[vm]);
    refuse(unit,
           obstacle ? arrangement_.describe(*obstacle, targets_[vm])
                    : "the plan has no moves left for it",
           decision_);
  }

  Arrangement& arrangement_;
  const std::vector<std::uint32_t>& targets_;
  std::size_t moves_max_;
  Homes homes_;
  std::vector<std::vector<std::uint32_t>> waiting_;  // VMs, by the host that they want to go to.
  std::deque<std::uint32_t> left_;                   // Hosts that somebody left since.
  Decision decision_;
};

}  // namespace

Decision consolidate(Arrangement& arrangement, const std::vector<double>& mean_memory,
                     const ConsolidationOptions& options) {
  const Scene& scene = arrangement.scene();
  std::vector<std::pair<double, std::uint32_t>> little_used;
  for (std::uint32_t host = 0; host < scene.hosts.size(); ++host) {
    if (!scene.hosts[host].is_up || arrangement.on(host).empty()) continue;
    const double mean =
        mean_memory.empty() ? arrangement.utilisation(host).back() : mean_memory.at(host);
    if (mean < options.low_memory) little_used.emplace_back(mean, host);
  }
  std::sort(little_used.begin(), little_used.end());

  Decision decision;
  Freeing freeing(arrangement, options);
  std::size_t failures = 0;
  for (const auto& [mean, host] : little_used) {
    const bool enough = decision.freed_hosts.size() >= options.hosts_max ||
                        decision.steps.size() >= options.moves_max;
    if (enough || failures >= options.failures_max) break;
    if (made_room_there(arrangement, host, decision)) continue;
    failures = freeing.free(host, decision) ? 0 : failures + 1;
  }
  std::erase_if(decision.refusals, [&](const Refusal& refusal) {
    return arrangement.host_of(refusal.vm) != scene.vms[refusal.vm].host;
  });
  go_straight(decision);
  return decision;
}

Decision drain(Arrangement& arrangement, const std::vector<std::uint32_t>& hosts,
               std::size_t moves_max) {
  Decision decision;
  Homes homes(arrangement,
              {.weights = {.sharing = 1, .movement = 0.5, .balance = 0.5}, .moves_max = moves_max});
  for (const std::uint32_t host : hosts) homes.exclude(host);
  for (const std::uint32_t host : hosts) {
    const std::string why = arrangement.scene().hosts[host].name + " is to be empty";
    for (const Unit& unit : units_on(arrangement, host)) {
      if (!homes.settle_in(unit, why, decision)) refuse(unit, homes.why_not(unit), decision);
    }
    if (arrangement.on(host).empty()) decision.freed_hosts.push_back(host);
  }
  return decision;
}

Decision repair(Arrangement& arrangement, const std::vector<Rule>& rules, std::size_t moves_max) {
  std::vector<std::uint32_t> leaving;
  for (std::uint32_t host = 0; host < arrangement.scene().hosts.size(); ++host) {
    if (arrangement.scene().hosts[host].leave) leaving.push_back(host);
  }
  Decision decision = drain(arrangement, leaving, moves_max);
  Decision more =
      Repair(arrangement, rules, moves_max - std::min(moves_max, decision.steps.size())).run();
  decision.steps.insert(decision.steps.end(), more.steps.begin(), more.steps.end());
  decision.refusals.insert(decision.refusals.end(), more.refusals.begin(), more.refusals.end());
  return decision;
}

Decision sequence(Arrangement& arrangement, const std::vector<std::uint32_t>& targets,
                  std::size_t moves_max) {
  return Sequencer(arrangement, targets, moves_max).run();
}

}  // namespace samepage::placer
