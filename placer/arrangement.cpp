#include "placer/arrangement.h"

#include <algorithm>
#include <bit>

#include <fmt/format.h>

#include "core/page_count.h"
#include "placer/packing/wide_cells.h"

namespace samepage::placer {
namespace {

using CellSpan = Scene::CellSpan;

constexpr double kRounding = 1e-9;

std::size_t count(std::span<const std::uint64_t> cells) {
  return count_both(cells.data(), cells.data(), cells.size());
}

bool contains(std::span<const std::uint32_t> numbers, std::uint32_t number) {
  return std::find(numbers.begin(), numbers.end(), number) != numbers.end();
}

void merge(std::vector<std::uint64_t>& into, std::span<const std::uint64_t> cells) {
  for (std::size_t w = 0; w < into.size(); ++w) into[w] |= cells[w];
}

}  // namespace

Arrangement::Arrangement(const Scene& scene, const Options& options)
    : scene_(&scene),
      options_(options),
      costs_(scene),
      hosts_(scene.hosts.size()),
      host_of_(scene.vms.size(), kNowhere),
      together_(scene.vms.size()) {
  for (Place& place : hosts_) place.cells.resize(scene.words);
  for (std::uint32_t vm = 0; vm < scene.vms.size(); ++vm) {
    const std::uint32_t host = scene.vms[vm].host;
    if (scene.vms[vm].together != kNowhere) together_[scene.vms[vm].together].push_back(vm);
    if (host == kNowhere) continue;
    host_of_[vm] = host;
    hosts_[host].vms.push_back(vm);
  }
  for (std::uint32_t host = 0; host < hosts_.size(); ++host) recount(host);
}

Unit Arrangement::unit(std::uint32_t vm) const {
  const std::uint32_t group = scene_->vms[vm].together;
  if (group == kNowhere) return unit_of(std::span(&vm, 1));
  std::vector<std::uint32_t> members;
  for (const std::uint32_t member : together_[group]) {
    if (host_of_[member] == host_of_[vm]) members.push_back(member);
  }
  return unit_of(members);
}

Unit Arrangement::unit_of(std::span<const std::uint32_t> vms) const {
  Unit unit;
  unit.vms.assign(vms.begin(), vms.end());
  unit.demand = scene_->vms[vms.front()].demand;
  for (const std::uint32_t vm : vms) unit.full_pages += scene_->vms[vm].full_pages;
  for (const std::uint32_t vm : vms.subspan(1)) {
    const PackItem& more = scene_->vms[vm].demand;
    merge(unit.demand.cells, more.cells);
    unit.demand.own += more.own;
    for (std::size_t i = 0; i < kLoads; ++i) unit.demand.loads.at(i) += more.loads.at(i);
    unit.demand.apart.insert(unit.demand.apart.end(), more.apart.begin(), more.apart.end());
    if (unit.demand.allowed.empty()) unit.demand.allowed = more.allowed;
    for (std::size_t host = 0; host < more.allowed.size(); ++host) {
      if (!more.allowed[host]) unit.demand.allowed[host] = false;
    }
  }
  unit.set = count(unit.demand.cells);
  return unit;
}

Loads Arrangement::loads_on(const Unit& unit, std::uint32_t host) const {
  if (!costs_.any()) return unit.demand.loads;
  Loads sum{};
  for (const std::uint32_t vm : unit.vms) {
    const Loads loads = costs_.on(vm, host);
    for (std::size_t i = 0; i < kLoads; ++i) sum.at(i) += loads.at(i);
  }
  return sum;
}

void Arrangement::recount(std::uint32_t host) {
  Place& place = hosts_[host];
  std::fill(place.cells.begin(), place.cells.end(), 0);
  place.own = 0;
  place.loads = {};
  for (const std::uint32_t vm : place.vms) {
    const PackItem& demand = scene_->vms[vm].demand;
    merge(place.cells, demand.cells);
    place.own += demand.own;
    const Loads loads = costs_.on(vm, host);
    for (std::size_t i = 0; i < kLoads; ++i) place.loads.at(i) += loads.at(i);
  }
  recount_merged(host);
  recount_stayed(place);
}

void Arrangement::recount_merged(std::uint32_t host) {
  Place& place = hosts_[host];
  place.set = count(place.cells);
  place.merged = scene_->pages_of_cells[place.set] + place.own;
  if (index_) index_->set(host, place.cells);
}

void Arrangement::recount_stayed(Place& place) const {
  place.arrived_full = 0;
  for (const std::uint32_t vm : place.arrived) place.arrived_full += scene_->vms[vm].full_pages;
  place.stayed = place.arrived.empty() ? place.merged : pages(union_without(place, {}, true));
}

Arrangement::Union Arrangement::union_without(const Place& place,
                                              std::span<const std::uint32_t> gone,
                                              bool stayed_only) const {
  Union memory{.cells = std::vector<std::uint64_t>(scene_->words), .own = 0};
  for (const std::uint32_t vm : place.vms) {
    if (contains(gone, vm) || (stayed_only && contains(place.arrived, vm))) continue;
    merge(memory.cells, scene_->vms[vm].demand.cells);
    memory.own += scene_->vms[vm].demand.own;
  }
  return memory;
}

double Arrangement::pages(const Union& memory) const {
  return scene_->pages_of_cells[count(memory.cells)] + memory.own;
}

double Arrangement::arriving(std::uint32_t host) const {
  return arriving(host, {});
}

double Arrangement::arriving(std::uint32_t host, std::span<const std::uint32_t> gone) const {
  const Place& place = hosts_[host];
  if (gone.empty()) return place.stayed + place.arrived_full;
  double sum = pages(union_without(place, gone, true));
  for (const std::uint32_t vm : place.arrived) {
    if (!contains(gone, vm)) sum += scene_->vms[vm].full_pages;
  }
  return sum;
}

std::array<double, kResources> Arrangement::utilisation(std::uint32_t host) const {
  const PackBin& bin = scene_->hosts[host].bin;
  std::array<double, kResources> used{};
  for (std::size_t i = 0; i < kLoads; ++i) {
    used.at(i) = bin.loads.at(i) > 0 ? hosts_[host].loads.at(i) / bin.loads.at(i) : 0;
  }
  used.back() = bin.capacity > 0 ? std::max(hosts_[host].merged, arriving(host)) / bin.capacity : 0;
  return used;
}

double Arrangement::common(const PackItem& demand, std::uint32_t host,
                           std::span<const std::uint32_t> gone) const {
  if (gone.empty()) return scene_->common(demand.cells, hosts_[host].cells);
  return scene_->common(demand.cells, union_without(hosts_[host], gone, false).cells);
}

std::optional<Obstacle> Arrangement::rule_against(const Unit& unit, std::uint32_t host,
                                                  std::span<const std::uint32_t> gone) const {
  const SceneHost& there = scene_->hosts[host];
  if (!there.is_up || !there.why_closed.empty()) return Obstacle{.kind = Obstacle::Kind::kClosed};
  if (!unit.demand.allowed.empty() && !unit.demand.allowed[host]) {
    return Obstacle{.kind = Obstacle::Kind::kRule};
  }
  if (unit.demand.apart.empty()) return std::nullopt;
  for (const std::uint32_t vm : hosts_[host].vms) {
    if (contains(gone, vm) || contains(unit.vms, vm)) continue;
    for (const std::uint32_t group : scene_->vms[vm].demand.apart) {
      if (contains(unit.demand.apart, group)) return Obstacle{.kind = Obstacle::Kind::kApart};
    }
  }
  return std::nullopt;
}

std::optional<Obstacle> Arrangement::load_against(const Unit& unit, std::uint32_t host,
                                                  std::span<const std::uint32_t> gone) const {
  const PackBin& bin = scene_->hosts[host].bin;
  const Loads loads = loads_on(unit, host);
  for (std::size_t i = 0; i < kLoads; ++i) {
    const double needed = loads.at(i);
    double free = bin.loads.at(i) * options_.load_max - hosts_[host].loads.at(i);
    for (const std::uint32_t vm : gone) free += costs_.on(vm, host).at(i);
    if (needed <= std::max(free, 0.0) + kRounding) continue;
    return Obstacle{.kind = Obstacle::Kind::kLoad,
                    .resource = static_cast<Resource>(i),
                    .needed = needed,
                    .free = std::max(free, 0.0)};
  }
  return std::nullopt;
}

// The merged way first: it is the one that fails most often.
std::optional<Obstacle> Arrangement::memory_against(const Unit& unit, std::uint32_t host,
                                                    const Held& held, double arriving) const {
  const PackBin& bin = scene_->hosts[host].bin;
  const std::vector<double>& table = scene_->pages_of_cells;
  const double before = table[held.set] + held.own;
  const double after = table[held.set + unit.set - held.common] + held.own + unit.demand.own;
  const double usable = bin.capacity * (1 - options_.headroom);
  if (after > usable * (1 + kRounding)) {
    return Obstacle{.kind = Obstacle::Kind::kMemory,
                    .resource = Resource::kMemory,
                    .needed = after - before,
                    .free = std::max(usable - before, 0.0)};
  }
  if (arriving + unit.full_pages <= bin.capacity * (1 + kRounding)) return std::nullopt;
  return Obstacle{.kind = Obstacle::Kind::kMemory,
                  .resource = Resource::kMemory,
                  .needed = unit.full_pages,
                  .free = std::max(bin.capacity - arriving, 0.0)};
}

std::optional<Obstacle> Arrangement::obstacle(const Unit& unit, std::uint32_t host,
                                              std::span<const std::uint32_t> gone) const {
  const Place& place = hosts_[host];
  if (gone.empty()) {
    const std::vector<std::uint64_t>& asked = unit.demand.cells;
    return obstacle_given(unit, host, count_both(asked.data(), place.cells.data(), asked.size()));
  }
  if (auto rule = rule_against(unit, host, gone)) return rule;
  if (auto load = load_against(unit, host, gone)) return load;
  const Union rest = union_without(place, gone, false);
  const Held held{
      .set = count(rest.cells),
      .common = count_both(unit.demand.cells.data(), rest.cells.data(), rest.cells.size()),
      .own = rest.own};
  return memory_against(unit, host, held, arriving(host, gone));
}

std::optional<Obstacle> Arrangement::obstacle_given(const Unit& unit, std::uint32_t host,
                                                    std::size_t cells) const {
  if (auto rule = rule_against(unit, host, {})) return rule;
  if (auto load = load_against(unit, host, {})) return load;
  const Place& place = hosts_[host];
  return memory_against(unit, host, {.set = place.set, .common = cells, .own = place.own},
                        arriving(host));
}

void Arrangement::index_hosts() {
  if (index_) return;
  std::vector<CellSpan> cells;
  for (const Place& place : hosts_) cells.emplace_back(place.cells);
  index_.emplace(scene_->words, hosts_.size());
  index_->set_all(cells);
}

void Arrangement::common_cells(const Unit& unit, std::vector<std::uint16_t>& cells) const {
  const std::vector<std::uint64_t>& asked = unit.demand.cells;
  if (index_) return index_->count_common(asked, cells);
  cells.clear();
  for (const Place& place : hosts_) {
    cells.push_back(
        static_cast<std::uint16_t>(count_both(asked.data(), place.cells.data(), asked.size())));
  }
}

double Arrangement::common(const Unit& unit, std::uint32_t host, std::size_t cells) const {
  const std::vector<double>& table = scene_->pages_of_cells;
  const std::size_t set = hosts_[host].set;
  return std::max(0.0, table[unit.set] + table[set] - table[unit.set + set - cells]);
}

std::string Arrangement::describe(const Obstacle& obstacle, std::uint32_t host) const {
  const SceneHost& there = scene_->hosts[host];
  switch (obstacle.kind) {
    case Obstacle::Kind::kClosed:
      return there.is_up ? there.why_closed : there.name + " is down";
    case Obstacle::Kind::kRule:
      return "a rule keeps it from " + there.name;
    case Obstacle::Kind::kApart:
      return "a rule keeps it apart from a VM on " + there.name;
    case Obstacle::Kind::kMemory:
      return fmt::format("{} has {:.0f} MiB free, and it needs {:.0f} MiB", there.name,
                         obstacle.free / kPagesPerMib, obstacle.needed / kPagesPerMib);
    case Obstacle::Kind::kLoad:
      return fmt::format("{} has {:.3g} of {} free, and it needs {:.3g}", there.name, obstacle.free,
                         to_string(obstacle.resource), obstacle.needed);
  }
  return {};
}

void Arrangement::put(std::uint32_t vm, std::uint32_t host, bool arrives) {
  Place& place = hosts_[host];
  place.vms.push_back(vm);
  if (arrives) place.arrived.push_back(vm);
  const PackItem& demand = scene_->vms[vm].demand;
  merge(place.cells, demand.cells);
  place.own += demand.own;
  const Loads loads = costs_.on(vm, host);
  for (std::size_t i = 0; i < kLoads; ++i) place.loads.at(i) += loads.at(i);
  recount_merged(host);
  if (arrives) {
    place.arrived_full += scene_->vms[vm].full_pages;
  } else {
    recount_stayed(place);
  }
  host_of_[vm] = host;
}

bool Arrangement::take(std::uint32_t vm, std::uint32_t host) {
  Place& place = hosts_[host];
  std::erase(place.vms, vm);
  const bool had_arrived = std::erase(place.arrived, vm) > 0;
  recount(host);
  host_of_[vm] = kNowhere;
  return had_arrived;
}

void Arrangement::move(std::uint32_t vm, std::uint32_t target) {
  Logged logged{.vm = vm, .from = host_of_[vm], .had_arrived = false};
  if (logged.from != kNowhere) logged.had_arrived = take(vm, logged.from);
  if (target != kNowhere) put(vm, target, true);
  log_.push_back(logged);
}

void Arrangement::move(const Unit& unit, std::uint32_t target) {
  for (const std::uint32_t vm : unit.vms) move(vm, target);
}

void Arrangement::unsettle(std::uint32_t vm) {
  Place& place = hosts_[host_of_[vm]];
  if (contains(place.arrived, vm)) return;
  place.arrived.push_back(vm);
  recount_stayed(place);
}

void Arrangement::settle() {
  for (Place& place : hosts_) {
    if (place.arrived.empty()) continue;
    place.arrived.clear();
    recount_stayed(place);
  }
  log_.clear();
}

void Arrangement::roll_back(std::size_t mark) {
  while (log_.size() > mark) {
    const Logged last = log_.back();
    log_.pop_back();
    if (host_of_[last.vm] != kNowhere) take(last.vm, host_of_[last.vm]);
    if (last.from != kNowhere) put(last.vm, last.from, last.had_arrived);
  }
}

}  // namespace samepage::placer
