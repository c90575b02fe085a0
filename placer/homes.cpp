#include "placer/homes.h"

#include <algorithm>
#include <utility>

#include <fmt/format.h>

#include "core/page_count.h"

namespace samepage::placer {
Homes::Homes(Arrangement& arrangement, const Options& options)
    : arrangement_(arrangement), options_(options), excluded_(arrangement.scene().hosts.size()) {}

// With all hosts; in a large fleet out of an index, which pays off at once.
std::vector<std::uint16_t> Homes::common_cells(const Unit& unit) const {
  constexpr std::size_t kManyHosts = 128;
  if (excluded_.size() > kManyHosts) arrangement_.index_hosts();
  std::vector<std::uint16_t> cells;
  arrangement_.common_cells(unit, cells);
  return cells;
}

Terms Homes::terms(const Unit& unit, std::uint32_t host, double common) const {
  const Scene& scene = arrangement_.scene();
  const PackBin& bin = scene.hosts[host].bin;
  const double size = std::max(1.0, scene.pages_of_cells[unit.set] + unit.demand.own);
  const double capacity = std::max(1.0, bin.capacity);
  const double filled = (arrangement_.merged(host) + size - common) / capacity;
  double scarcest = filled;
  const Loads loads = arrangement_.loads_on(unit, host);
  for (std::size_t i = 0; i < kLoads; ++i) {
    if (bin.loads.at(i) <= 0) continue;
    const double load = arrangement_.loads(host).at(i) + loads.at(i);
    scarcest = std::max(scarcest, load / bin.loads.at(i));
  }
  return {.sharing = common / size,
          .hosts = arrangement_.on(host).empty() ? 0 : std::clamp(filled, 0.0, 1.0),
          .movement = common / size,
          .balance = std::clamp(1 - scarcest, 0.0, 1.0),
          .warmth = scene.hosts[host].warmth};
}

bool Homes::is_movable(const Unit& unit) const {
  return std::all_of(unit.vms.begin(), unit.vms.end(), [&](std::uint32_t vm) {
    return arrangement_.scene().vms[vm].why_fixed.empty();
  });
}

std::optional<Homes::Home> Homes::best(const Unit& unit) const {
  const std::uint32_t source = arrangement_.host_of(unit.vms.front());
  const std::vector<std::uint16_t> cells = common_cells(unit);
  std::optional<Home> best;
  for (std::uint32_t host = 0; host < excluded_.size(); ++host) {
    if (host == source || excluded_[host]) continue;
    if (arrangement_.obstacle_given(unit, host, cells[host])) continue;
    const Terms found = terms(unit, host, arrangement_.common(unit, host, cells[host]));
    const double score = options_.weights.score(found);
    if (!best || score > best->score) best = Home{.host = host, .terms = found, .score = score};
  }
  return best;
}

void Homes::move(const Unit& unit, std::uint32_t target, const std::string& why,
                 Decision& decision) {
  const std::uint32_t source = arrangement_.host_of(unit.vms.front());
  const Terms found = terms(unit, target, arrangement_.common(unit.demand, target));
  for (const std::uint32_t vm : unit.vms) {
    const PackItem& demand = arrangement_.scene().vms[vm].demand;
    const double there = arrangement_.common(demand, target);
    double here = 0;
    if (source != kNowhere) here = arrangement_.common(demand, source, std::span(&vm, 1));
    const std::string costs = arrangement_.costs().describe(vm, target);
    decision.steps.push_back({.vm = vm,
                              .source = source,
                              .target = target,
                              .reason = costs.empty() ? why : why + "; " + costs,
                              .gain_pages = there - here,
                              .cost_pages = arrangement_.scene().pages(demand) - there,
                              .terms = found});
    arrangement_.move(vm, target);
  }
}

bool Homes::settle_in(const Unit& unit, const std::string& why, Decision& decision) {
  if (!is_movable(unit) || decision.steps.size() + unit.vms.size() > options_.moves_max) {
    return false;
  }
  if (const std::optional<Home> home = best(unit)) {
    move(unit, home->host, why, decision);
    return true;
  }
  return make_room(unit, why, decision);
}

// On the hosts that lack least: crowded, but not closed to the unit.
bool Homes::make_room(const Unit& unit, const std::string& why, Decision& decision) {
  const std::vector<std::uint16_t> cells = common_cells(unit);
  std::vector<std::pair<double, std::uint32_t>> crowded;
  for (std::uint32_t host = 0; host < excluded_.size(); ++host) {
    if (host == arrangement_.host_of(unit.vms.front()) || excluded_[host]) continue;
    const auto obstacle = arrangement_.obstacle_given(unit, host, cells[host]);
    if (!obstacle) continue;
    const bool lacks = obstacle->kind == Obstacle::Kind::kMemory ||
                       obstacle->kind == Obstacle::Kind::kLoad ||
                       obstacle->kind == Obstacle::Kind::kApart;
    if (!lacks) continue;
    const double part = obstacle->free / std::max(obstacle->needed, 1e-9);
    crowded.emplace_back(-part, host);
  }
  const std::size_t looked_at = std::min(crowded.size(), options_.crowded_hosts_max);
  std::partial_sort(crowded.begin(), crowded.begin() + static_cast<std::ptrdiff_t>(looked_at),
                    crowded.end());
  crowded.resize(looked_at);
  return std::any_of(crowded.begin(), crowded.end(), [&](const auto& candidate) {
    return make_room_on(candidate.second, unit, why, decision);
  });
}

bool Homes::make_room_on(std::uint32_t host, const Unit& unit, const std::string& why,
                         Decision& decision) {
  if (decision.steps.size() + unit.vms.size() + 1 > options_.moves_max) return false;
  const Scene& scene = arrangement_.scene();
  std::vector<std::uint32_t> residents = arrangement_.on(host);
  std::sort(residents.begin(), residents.end(), [&](std::uint32_t a, std::uint32_t b) {
    return std::pair(scene.vms[a].full_pages, a) < std::pair(scene.vms[b].full_pages, b);
  });
  const bool was_excluded = excluded_[host];
  excluded_[host] = true;
  bool done = false;
  for (const std::uint32_t vm : residents) {
    const Unit other = arrangement_.unit(vm);
    if (!is_movable(other) || arrangement_.obstacle(unit, host, other.vms)) continue;
    const std::optional<Home> home = best(other);
    if (!home) continue;
    move(other, home->host,
         fmt::format("{} makes room on {} for {}", scene.vms[vm].name, scene.hosts[host].name,
                     scene.vms[unit.vms.front()].name),
         decision);
    move(unit, host, why, decision);
    done = true;
    break;
  }
  excluded_[host] = was_excluded;
  return done;
}

std::string Homes::why_not(const Unit& unit) const {
  const Scene& scene = arrangement_.scene();
  const std::string& name = scene.vms[unit.vms.front()].name;
  for (const std::uint32_t vm : unit.vms) {
    if (!scene.vms[vm].why_fixed.empty()) return scene.vms[vm].why_fixed;
  }
  std::optional<Obstacle> closest;
  std::uint32_t at = 0;
  const auto part = [](const Obstacle& obstacle) {
    return obstacle.needed > 0 ? obstacle.free / obstacle.needed : -1;
  };
  const std::vector<std::uint16_t> cells = common_cells(unit);
  for (std::uint32_t host = 0; host < excluded_.size(); ++host) {
    if (host == arrangement_.host_of(unit.vms.front()) || excluded_[host]) continue;
    const auto obstacle = arrangement_.obstacle_given(unit, host, cells[host]);
    if (!obstacle) return fmt::format("the plan has no moves left for {}", name);
    if (closest && part(*obstacle) <= part(*closest)) continue;
    closest = obstacle;
    at = host;
  }
  if (!closest) return fmt::format("there is no other host for {}", name);
  return fmt::format("no host takes {} ({:.0f} MiB): {}", name, unit.full_pages / kPagesPerMib,
                     arrangement_.describe(*closest, at));
}

}  // namespace samepage::placer
