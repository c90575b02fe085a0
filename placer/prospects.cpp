#include "placer/prospects.h"

#include <algorithm>
#include <functional>
#include <utility>

namespace samepage::placer {

Prospects::Prospects(const Arrangement& arrangement) : arrangement_(arrangement) {
  const Scene& scene = arrangement.scene();
  for (std::uint32_t host = 0; host < scene.hosts.size(); ++host) {
    if (scene.hosts[host].is_up && scene.hosts[host].why_closed.empty()) open_.push_back(host);
  }
  if (open_.size() <= kAll) return;
  std::vector<std::pair<double, std::uint32_t>> used;
  for (const std::uint32_t host : open_) {
    const auto parts = arrangement.utilisation(host);
    used.emplace_back(*std::max_element(parts.begin(), parts.end()), host);
  }
  std::partial_sort(used.begin(), used.begin() + kRoomiest, used.end());
  for (std::size_t i = 0; i < kRoomiest; ++i) roomiest_.push_back(used[i].second);
}

std::vector<std::uint32_t> Prospects::of(const Unit& unit) const {
  std::vector<std::uint32_t> hosts = open_.size() <= kAll ? open_ : roomiest_;
  if (open_.size() > kAll) add_most_alike(unit, hosts);
  std::erase(hosts, arrangement_.host_of(unit.vms.front()));
  return hosts;
}

void Prospects::add_most_alike(const Unit& unit, std::vector<std::uint32_t>& hosts) const {
  thread_local std::vector<std::uint16_t> cells;
  arrangement_.common_cells(unit, cells);
  std::vector<std::pair<double, std::uint32_t>> most;  // A heap whose first is the least alike.
  const std::greater<> is_more;
  for (const std::uint32_t host : open_) {
    const std::pair found(arrangement_.common(unit, host, cells[host]), host);
    if (most.size() == kMostAlike && found.first <= most.front().first) continue;
    if (most.size() == kMostAlike) {
      std::pop_heap(most.begin(), most.end(), is_more);
      most.pop_back();
    }
    most.push_back(found);
    std::push_heap(most.begin(), most.end(), is_more);
  }
  for (const auto& [pages, host] : most) hosts.push_back(host);
  std::sort(hosts.begin(), hosts.end());
  hosts.erase(std::unique(hosts.begin(), hosts.end()), hosts.end());
}

}  // namespace samepage::placer
