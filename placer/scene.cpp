#include "placer/scene.h"

#include <algorithm>
#include <bit>
#include <cmath>

#include <fmt/format.h>

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

double Scene::pages(const PackItem& demand) const {
  std::size_t cells = 0;
  for (const std::uint64_t word : demand.cells) {
    cells += static_cast<std::size_t>(std::popcount(word));
  }
  return pages_of_cells.at(cells) + demand.own;
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
PackProblem Scene::problem(double headroom) const {
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
  for (const SceneVm& vm : vms) {
    PackItem item = vm.demand;
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
  for (const SceneVm& vm : scene.vms) {
    const std::string fault = fault_of(vm, scene);
    if (!fault.empty()) return fault;
  }
  return {};
}

}  // namespace samepage::placer
