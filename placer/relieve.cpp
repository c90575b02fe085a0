#include "placer/relieve.h"

#include <algorithm>
#include <numeric>
#include <utility>

#include <fmt/format.h>

#include "core/page_count.h"

namespace samepage::placer {
namespace {

class Relief {
 public:
  Relief(Arrangement& arrangement, const ReliefOptions& options)
      : arrangement_(arrangement),
        options_(options),
        homes_(arrangement,
               {.weights = {.sharing = 0.2, .balance = 1}, .moves_max = options.moves_max}) {}

  Decision run(std::vector<HotHost> hot) {
    std::stable_sort(hot.begin(), hot.end(), [&](const HotHost& a, const HotHost& b) {
      return volume(arrangement_.utilisation(a.host)) > volume(arrangement_.utilisation(b.host));
    });
    for (const HotHost& host : hot) homes_.exclude(host.host);
    for (const HotHost& host : hot) cool(host);
    return std::move(decision_);
  }

 private:
  struct Candidate {
    Unit unit;
    double per_memory = 0;  ///< Volume for each MiB.
  };

  bool is_hot(std::uint32_t host) const { return is_hot(arrangement_.utilisation(host)); }
  bool is_hot(const std::array<double, kResources>& used) const {
    for (std::size_t i = 0; i < kLoads; ++i) {
      if (used.at(i) > options_.load_threshold) return true;
    }
    return used.back() > options_.memory_threshold;
  }

  void cool(const HotHost& hot) {
    bool must = hot.outright;
    while (must || is_hot(hot.host)) {
      must = false;
      std::vector<Candidate> candidates = candidates_on(hot.host);
      if (move_one_that_suffices(hot, candidates) || move_most_for_its_memory(hot, candidates)) {
        continue;
      }
      if (swap_one(hot, candidates)) continue;
      refuse(hot, candidates);
      return;
    }
  }

  std::vector<Candidate> candidates_on(std::uint32_t host) const {
    std::vector<Candidate> candidates;
    std::vector<bool> seen(arrangement_.scene().vms.size());
    for (const std::uint32_t vm : arrangement_.on(host)) {
      if (seen[vm]) continue;
      Candidate candidate{.unit = arrangement_.unit(vm)};
      for (const std::uint32_t member : candidate.unit.vms) seen[member] = true;
      if (!homes_.is_movable(candidate.unit)) continue;
      candidate.per_memory = per_memory(candidate.unit, host);
      candidates.push_back(std::move(candidate));
    }
    std::stable_sort(
        candidates.begin(), candidates.end(),
        [](const Candidate& a, const Candidate& b) { return a.per_memory > b.per_memory; });
    return candidates;
  }

  double per_memory(const Unit& unit, std::uint32_t host) const {
    const PackBin& bin = arrangement_.scene().hosts[host].bin;
    const Loads loads = arrangement_.loads_on(unit, host);
    std::array<double, kResources> used{};
    for (std::size_t i = 0; i < kLoads; ++i) {
      used.at(i) = bin.loads.at(i) > 0 ? loads.at(i) / bin.loads.at(i) : 0;
    }
    used.back() = bin.capacity > 0 ? arrangement_.scene().pages(unit.demand) / bin.capacity : 0;
    return volume(used) / std::max(1.0, unit.full_pages / kPagesPerMib);
  }

  // Of those that cool the host at once: for memory, the one that gains most sharing; else the one
  // with most volume for its memory.
  bool move_one_that_suffices(const HotHost& hot, const std::vector<Candidate>& candidates) {
    const Candidate* best = nullptr;
    std::uint32_t target = kNowhere;
    double most = 0;
    for (const Candidate& candidate : candidates) {
      if (!suffices(candidate.unit, hot.host)) continue;
      const auto home = homes_.best(candidate.unit);
      if (!home) continue;
      const double value = hot.resource == Resource::kMemory
                               ? sharing_gain(candidate.unit, home->host)
                               : candidate.per_memory;
      if (best != nullptr && value <= most) continue;
      best = &candidate;
      target = home->host;
      most = value;
    }
    return best != nullptr && take(best->unit, target, hot);
  }

  bool suffices(const Unit& unit, std::uint32_t host) const {
    const std::size_t mark = arrangement_.mark();
    arrangement_.move(unit, kNowhere);
    const bool hot = is_hot(host);
    arrangement_.roll_back(mark);
    return !hot;
  }

  double sharing_gain(const Unit& unit, std::uint32_t target) const {
    const std::uint32_t source = arrangement_.host_of(unit.vms.front());
    return arrangement_.common(unit.demand, target) -
           arrangement_.common(unit.demand, source, unit.vms);
  }

  bool move_most_for_its_memory(const HotHost& hot, const std::vector<Candidate>& candidates) {
    return std::any_of(candidates.begin(), candidates.end(), [&](const Candidate& candidate) {
      const auto home = homes_.best(candidate.unit);
      return home && take(candidate.unit, home->host, hot);
    });
  }

  bool take(const Unit& unit, std::uint32_t target, const HotHost& hot) {
    if (decision_.steps.size() + unit.vms.size() > options_.moves_max) return false;
    homes_.move(unit, target, why(unit, hot, target), decision_);
    return true;
  }

  std::string why(const Unit& unit, const HotHost& hot, std::uint32_t target) const {
    const Scene& scene = arrangement_.scene();
    const auto used = arrangement_.utilisation(target);
    const auto resource = static_cast<std::size_t>(hot.resource);
    return fmt::format("{}: {}; {} uses {:.0f} % of its {}", scene.vms[unit.vms.front()].name,
                       hot.why, scene.hosts[target].name, 100 * used.at(resource),
                       to_string(hot.resource));
  }

  // With VMs of a cool host that have least volume for their memory, fewest first.
  bool swap_one(const HotHost& hot, const std::vector<Candidate>& candidates) {
    std::vector<std::uint32_t> hosts(arrangement_.scene().hosts.size());
    std::iota(hosts.begin(), hosts.end(), 0U);
    std::erase_if(hosts, [&](std::uint32_t host) { return homes_.is_excluded(host); });
    std::stable_sort(hosts.begin(), hosts.end(), [&](std::uint32_t a, std::uint32_t b) {
      return volume(arrangement_.utilisation(a)) < volume(arrangement_.utilisation(b));
    });
    constexpr std::size_t kHostsTried = 32;
    if (hosts.size() > kHostsTried) hosts.resize(kHostsTried);
    for (const Candidate& candidate : candidates) {
      for (const std::uint32_t host : hosts) {
        if (swap(candidate.unit, host, hot)) return true;
      }
    }
    return false;
  }

  bool swap(const Unit& unit, std::uint32_t host, const HotHost& hot) {
    std::vector<Candidate> partners = candidates_on(host);
    std::vector<std::uint32_t> leaving;
    for (std::size_t count = 1; count <= options_.swap_partners_max && !partners.empty(); ++count) {
      const Unit least = std::move(partners.back().unit);
      partners.pop_back();
      leaving.insert(leaving.end(), least.vms.begin(), least.vms.end());
      if (arrangement_.obstacle(unit, host, leaving)) continue;
      return exchange(unit, arrangement_.unit_of(leaving), hot);
    }
    return false;
  }

  // Who goes first must fit beside those who are still there; else it waits on a third host.
  bool exchange(const Unit& unit, const Unit& partners, const HotHost& hot) {
    if (decision_.steps.size() + unit.vms.size() + 2 * partners.vms.size() > options_.moves_max) {
      return false;
    }
    const std::uint32_t target = arrangement_.host_of(partners.vms.front());
    const double relief = heat(hot.host);
    const std::size_t mark = arrangement_.mark();
    const std::size_t steps = decision_.steps.size();
    homes_.include(hot.host);
    if (!arrangement_.obstacle(unit, target)) {
      homes_.move(unit, target, why(unit, hot, target), decision_);
      back(partners, hot, unit);
    } else if (!arrangement_.obstacle(partners, hot.host)) {
      back(partners, hot, unit);
      homes_.move(unit, target, why(unit, hot, target), decision_);
    } else {
      by_a_third_host(unit, partners, hot);
    }
    homes_.exclude(hot.host);
    const bool helped = arrangement_.host_of(unit.vms.front()) == target &&
                        heat(hot.host) < relief && !is_hot(target);
    if (helped) return true;
    arrangement_.roll_back(mark);
    decision_.steps.resize(steps);
    return false;
  }

  void back(const Unit& partners, const HotHost& hot, const Unit& unit) {
    const Scene& scene = arrangement_.scene();
    homes_.move(partners, hot.host,
                fmt::format("{} changes places with {}", scene.vms[partners.vms.front()].name,
                            scene.vms[unit.vms.front()].name),
                decision_);
  }

  void by_a_third_host(const Unit& unit, const Unit& partners, const HotHost& hot) {
    const Scene& scene = arrangement_.scene();
    const std::uint32_t target = arrangement_.host_of(partners.vms.front());
    homes_.exclude(hot.host);
    const auto third = homes_.best(partners);
    if (!third) return;
    homes_.move(partners, third->host,
                fmt::format("{} waits on {} until {} has left {}",
                            scene.vms[partners.vms.front()].name, scene.hosts[third->host].name,
                            scene.vms[unit.vms.front()].name, scene.hosts[hot.host].name),
                decision_);
    homes_.move(unit, target, why(unit, hot, target), decision_);
    if (!arrangement_.obstacle(partners, hot.host)) back(partners, hot, unit);
  }

  double heat(std::uint32_t host) const { return volume(arrangement_.utilisation(host)); }

  void refuse(const HotHost& hot, const std::vector<Candidate>& candidates) {
    for (const Candidate& candidate : candidates) {
      for (const std::uint32_t vm : candidate.unit.vms) {
        decision_.refusals.push_back(
            {.vm = vm, .reason = hot.why + ", but " + homes_.why_not(candidate.unit)});
      }
    }
  }

  Arrangement& arrangement_;
  ReliefOptions options_;
  Homes homes_;
  Decision decision_;
};

}  // namespace

double volume(const std::array<double, kResources>& utilisation) {
  constexpr double kLeftMin = 0.01;  // A resource that is used up, or beyond.
  double product = 1;
  for (const double used : utilisation) product /= std::max(1 - used, kLeftMin);
  return product;
}

Decision relieve(Arrangement& arrangement, const std::vector<HotHost>& hot,
                 const ReliefOptions& options) {
  return Relief(arrangement, options).run(hot);
}

}  // namespace samepage::placer
