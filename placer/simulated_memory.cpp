#include "placer/simulated_memory.h"

#include <bit>

namespace samepage::placer {
namespace {

constexpr double kLongAgoS = -1e18;

}  // namespace

SimulatedMemory::SimulatedMemory(const Scene& scene, std::size_t vms, std::size_t hosts,
                                 double merge_s)
    : scene_(scene),
      merge_s_(merge_s),
      arrived_s_(vms, kLongAgoS),
      members_(hosts),
      pages_(hosts),
      is_dirty_(hosts, true) {}

void SimulatedMemory::move(std::uint32_t vm, std::uint32_t from, std::uint32_t to, double now_s) {
  if (from != kNowhere) {
    std::erase(members_[from], vm);
    is_dirty_[from] = true;
  }
  arrived_s_[vm] = now_s;
  if (to == kNowhere) return;
  members_[to].push_back(vm);
  is_dirty_[to] = true;
}

void SimulatedMemory::changed(std::uint32_t vm) {
  const std::uint32_t host = scene_.vms[vm].host;
  if (host != kNowhere) is_dirty_[host] = true;
}

void SimulatedMemory::note_merging(std::uint32_t vm, double now_s, double lately_s) {
  const double age_s = now_s - arrived_s_[vm];
  if (age_s >= merge_s_ && age_s < merge_s_ + lately_s) changed(vm);
}

double SimulatedMemory::pages(std::uint32_t host, double now_s) {
  if (is_dirty_[host]) pages_[host] = count(host, now_s);
  is_dirty_[host] = false;
  return pages_[host];
}

double SimulatedMemory::count(std::uint32_t host, double now_s) const {
  std::vector<std::uint64_t> cells(scene_.words);
  double pages = 0;
  for (const std::uint32_t vm : members_[host]) {
    const SceneVm& here = scene_.vms[vm];
    if (!is_merged(vm, now_s)) {
      pages += here.full_pages;
      continue;
    }
    pages += here.demand.own;
    for (std::size_t w = 0; w < cells.size(); ++w) cells[w] |= here.demand.cells[w];
  }
  std::size_t count = 0;
  for (const std::uint64_t word : cells) count += static_cast<std::size_t>(std::popcount(word));
  return pages + scene_.pages_of_cells[count];
}

}  // namespace samepage::placer
