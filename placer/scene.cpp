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

// A VM that is fixed is tied to its host; a host that is closed takes only those.
PackProblem Scene::problem(double headroom, Counted counted) const {
  const ClassCosts costs(*this);
  PackProblem problem;
  problem.words = words;
  problem.pages_of_cells = pages_of_cells;
  std::vector<bool> open;
  bool all_open = true;
  for (const SceneHost& host : hosts) {
    problem.bins.push_back(host.bin);
    problem.bins.back().capacity *= 1 - headroom;
    open.push_back(host.why_closed.empty());
    all_open = all_open && open.back();
  }
  for (std::uint32_t number = 0; number < vms.size(); ++number) {
    const SceneVm& vm = vms[number];
    PackItem item = vm.demand;
    item.loads = counted == Counted::kMost ? costs.most(number) : costs.least(number);
    if (!vm.why_fixed.empty() && vm.host != kNowhere) {
      item.allowed.assign(hosts.size(), false);
      item.allowed[vm.host] = true;
    } else if (!all_open) {
      if (item.allowed.empty()) item.allowed.assign(hosts.size(), true);
      for (std::size_t host = 0; host < hosts.size(); ++host) {
        if (!open[host]) item.allowed[host] = false;
      }
    }
    problem.items.push_back(std::move(item));
  }
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
