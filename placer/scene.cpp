#include "placer/scene.h"

#include <algorithm>
#include <cmath>

#include <fmt/format.h>

#include "placer/class_costs.h"
#include "placer/packing/wide_cells.h"

namespace samepage::placer {
namespace {

bool is_sound(double number) {
  return std::isfinite(number) && number >= 0;
}

std::string fault_of(const SceneVm& vm, const Scene& scene) {
  if (vm.host != kNowhere && vm.host >= scene.hosts.size()) return vm.name + " is on no host";
  if (!is_sound(vm.demand.own) || !is_sound(vm.full_pages)) {
    return fmt::format("the memory of {} is {} pages, {} before merging", vm.name, vm.demand.own,
                       vm.full_pages);
  }
  for (std::size_t i = 0; i < kLoads; ++i) {
    if (is_sound(vm.demand.loads.at(i))) continue;
    return fmt::format("the {} load of {} is {}", to_string(static_cast<Resource>(i)), vm.name,
                       vm.demand.loads.at(i));
  }
  if (vm.demand.cells.size() != scene.words) return "the pages of " + vm.name + " are no bitmap";
  return {};
}

// A host that is closed is no larger than those that must stay on it: nobody else fits.
void close_bins(const Scene& scene, PackProblem& problem) {
  constexpr double kRounding = 1 + 1e-6;
  std::vector<std::vector<std::uint64_t>> cells(scene.hosts.size());
  for (std::size_t host = 0; host < scene.hosts.size(); ++host) {
    if (scene.hosts[host].is_up && scene.hosts[host].why_closed.empty()) continue;
    problem.bins[host] = {};
    cells[host].resize(scene.words);
  }
  for (std::size_t vm = 0; vm < scene.vms.size(); ++vm) {
    const std::uint32_t host = scene.vms[vm].host;
    if (scene.vms[vm].why_fixed.empty() || host == kNowhere || cells[host].empty()) continue;
    const PackItem& item = problem.items[vm];
    for (std::size_t w = 0; w < scene.words; ++w) cells[host][w] |= item.cells[w];
    problem.bins[host].capacity += item.own * kRounding;
    for (std::size_t i = 0; i < kLoads; ++i) {
      problem.bins[host].loads.at(i) += item.loads.at(i) * kRounding;
    }
  }
  for (std::size_t host = 0; host < scene.hosts.size(); ++host) {
    if (!cells[host].empty()) problem.bins[host].capacity += scene.pages(cells[host]) * kRounding;
  }
}

}  // namespace

std::string_view to_string(Resource resource) {
  switch (resource) {
    case Resource::kCpu:
      return "CPU";
    case Resource::kNetwork:
      return "network";
    case Resource::kDisk:
      return "disk";
    case Resource::kMemory:
      return "memory";
  }
  return "unknown";
}

double Scene::pages(CellSpan cells) const {
  return pages_of_cells.at(count_both(cells.data(), cells.data(), cells.size()));
}

double Scene::pages(const PackItem& demand) const {
  return pages(demand.cells) + demand.own;
}

double Scene::common(CellSpan a, CellSpan b) const {
  const std::size_t in_a = count_both(a.data(), a.data(), a.size());
  const std::size_t in_b = count_both(b.data(), b.data(), b.size());
  const std::size_t added = count_only(a.data(), b.data(), a.size());
  return std::max(0.0, pages_of_cells[in_a] + pages_of_cells[in_b] - pages_of_cells[in_b + added]);
}

// One band of fingerprinter/overlap.cpp at beta = 1: what colliding cells and the sample do to
// n1 + n2 - U, less the pages of the sample themselves, which are certain.
double Scene::error(double a, double b, double common) const {
  constexpr double kZ95 = 1.96;
  if (sampled >= 1 || cells_in_use <= 0) return 0;
  const auto grown = [&](double pages) { return std::expm1(pages * sampled / cells_in_use); };
  const double cell = grown(a + b - common) - grown(a) - grown(b) + 2 * grown(common);
  const double variance = std::max(cell * cells_in_use, 1.0) / (sampled * sampled) - common;
  return kZ95 * std::sqrt(std::max(variance, 1 / sampled));
}

std::uint32_t Scene::find_host(std::string_view name) const {
  for (std::uint32_t host = 0; host < hosts.size(); ++host) {
    if (hosts[host].name == name) return host;
  }
  return kNowhere;
}

std::uint32_t Scene::find_vm(std::string_view name_or_id) const {
  for (std::uint32_t vm = 0; vm < vms.size(); ++vm) {
    if (vms[vm].name == name_or_id || vms[vm].id == name_or_id) return vm;
  }
  return kNowhere;
}

// A VM that is fixed is tied to its host.
PackProblem Scene::problem(double headroom, Counted counted) const {
  const ClassCosts costs(*this);
  PackProblem problem;
  problem.words = words;
  problem.pages_of_cells = pages_of_cells;
  for (const SceneVm& vm : vms) {
    const auto number = static_cast<std::uint32_t>(problem.items.size());
    PackItem item = vm.demand;
    item.loads = counted == Counted::kMost ? costs.most(number) : costs.least(number);
    if (!vm.why_fixed.empty() && vm.host != kNowhere) {
      item.allowed.assign(hosts.size(), false);
      item.allowed[vm.host] = true;
    }
    problem.items.push_back(std::move(item));
  }
  for (const SceneHost& host : hosts) {
    problem.bins.push_back(host.bin);
    problem.bins.back().capacity *= 1 - headroom;
  }
  close_bins(*this, problem);
  return problem;
}

std::string find_scene_fault(const Scene& scene) {
  for (const SceneHost& host : scene.hosts) {
    const bool sound = is_sound(host.bin.capacity) &&
                       std::all_of(host.bin.loads.begin(), host.bin.loads.end(), is_sound);
    if (!sound) return "the capacity of " + host.name + " is no sound number";
  }
  for (const ClassModel& model : scene.class_models) {
    const bool sound = std::isfinite(model.constant) &&
                       std::all_of(model.factors.begin(), model.factors.end(),
                                   [](double factor) { return std::isfinite(factor); });
    if (!sound) return fmt::format("overhead model {} has no sound numbers", model.id);
  }
  for (const SceneVm& vm : scene.vms) {
    const std::string fault = fault_of(vm, scene);
    if (!fault.empty()) return fault;
  }
  return {};
}

}  // namespace samepage::placer
