#include "placer/initial_placement.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <span>
#include <utility>

#include "placer/packing/wide_cells.h"

namespace samepage::placer {
namespace {

constexpr double kWarmthWeight = 1.0 / 3;

std::vector<std::uint32_t> largest_first(const Arrangement& arrangement,
                                         std::vector<std::uint32_t> vms) {
  const Scene& scene = arrangement.scene();
  std::stable_sort(vms.begin(), vms.end(), [&](std::uint32_t a, std::uint32_t b) {
    return scene.vms[a].full_pages > scene.vms[b].full_pages;
  });
  return vms;
}

double peak_of(const Arrangement& arrangement) {
  double peak = 0;
  for (std::uint32_t host = 0; host < arrangement.scene().hosts.size(); ++host) {
    peak = std::max(peak, arrangement.utilisation(host).back());
  }
  return peak;
}

std::vector<std::uint32_t> open_hosts(const Scene& scene) {
  std::vector<std::uint32_t> open;
  for (std::uint32_t host = 0; host < scene.hosts.size(); ++host) {
    if (scene.hosts[host].is_up && scene.hosts[host].why_closed.empty()) open.push_back(host);
  }
  return open;
}

/// Whether VMs find room when no host's memory may be used beyond a part; and what no part below
/// which can do.
class Spread {
 public:
  Spread(Arrangement& arrangement, std::vector<std::uint32_t> vms)
      : arrangement_(arrangement),
        scene_(arrangement.scene()),
        vms_(std::move(vms)),
        hosts_(open_hosts(scene_)) {
    cells_.resize(scene_.vms.size());
    for (const std::uint32_t vm : vms_) {
      cells_[vm] = pages_alone(vm) - scene_.vms[vm].demand.own;
    }
  }

  // Every VM's own pages, and every cell once: spread evenly over the open hosts. Cells that hosts
  // hold already cost nothing more.
  double bound(double limit_max) const {
    double low = 0;
    double high = limit_max;
    for (int i = 0; i < kSteps; ++i) {
      const double middle = (low + high) / 2;
      (can_hold(middle) ? high : low) = middle;
    }
    return low;
  }

  bool fill(double limit) {
    for (const std::uint32_t vm : vms_) {
      const Unit unit = arrangement_.unit_of(std::span(&vm, 1));
      const std::uint32_t host = best_under(unit, limit);
      if (host == kNowhere) return false;
      arrangement_.move(vm, host);
    }
    return true;
  }

 private:
  static constexpr int kSteps = 40;

  double pages_alone(std::uint32_t vm) const { return scene_.pages(scene_.vms[vm].demand); }

  // As bins_bound(): a cell is on as many hosts as its holders' own pages need beside their cells.
  bool can_hold(double limit) const {
    double room = 0;
    double largest = 0;
    for (const std::uint32_t host : hosts_) {
      const double capacity = scene_.hosts[host].bin.capacity * limit;
      room += std::max(0.0, capacity - arrangement_.merged(host));
      largest = std::max(largest, capacity);
    }
    std::vector<double> parts(scene_.words * 64);
    double needed = 0;
    for (const std::uint32_t vm : vms_) {
      const PackItem& demand = scene_.vms[vm].demand;
      needed += demand.own;
      const double beside = largest - cells_[vm];
      if (beside < demand.own) return false;
      add_parts(demand, beside > 0 ? demand.own / beside : 0, parts);
    }
    const double unit = scene_.pages_of_cells[1];
    for (std::size_t cell = 0; cell < parts.size(); ++cell) {
      if (parts[cell] <= 0) continue;
      const double copies = std::ceil(std::max(1.0, parts[cell]) - 1e-6);
      needed += unit * std::max(0.0, copies - static_cast<double>(holders(cell)));
    }
    return needed <= room;
  }

  static void add_parts(const PackItem& demand, double part, std::vector<double>& parts) {
    for (std::size_t w = 0; w < demand.cells.size(); ++w) {
      for (std::uint64_t rest = demand.cells[w]; rest != 0; rest &= rest - 1) {
        parts[w * 64 + static_cast<std::size_t>(std::countr_zero(rest))] += std::max(part, 1e-12);
      }
    }
  }

  std::size_t holders(std::size_t cell) const {
    return static_cast<std::size_t>(
        std::count_if(hosts_.begin(), hosts_.end(), [&](std::uint32_t host) {
          return ((arrangement_.cells(host)[cell / 64] >> (cell % 64)) & 1U) != 0;
        }));
  }

  // Where it has most in common; of those alike, where it is fullest.
  std::uint32_t best_under(const Unit& unit, double limit) const {
    std::uint32_t best = kNowhere;
    double best_score = 0;
    const double size = std::max(1.0, scene_.pages(unit.demand));
    for (const std::uint32_t host : hosts_) {
      const double capacity = scene_.hosts[host].bin.capacity;
      if (arrangement_.merged(host) + unit.demand.own > limit * capacity) continue;
      const double common = arrangement_.common(unit.demand, host);
      const double after = (arrangement_.merged(host) + size - common) / capacity;
      if (after > limit || arrangement_.obstacle(unit, host)) continue;
      const double score = common / size + kWarmthWeight * scene_.hosts[host].warmth + 0.01 * after;
      if (best != kNowhere && score <= best_score) continue;
      best = host;
      best_score = score;
    }
    return best;
  }

  Arrangement& arrangement_;
  const Scene& scene_;
  std::vector<std::uint32_t> vms_;
  std::vector<std::uint32_t> hosts_;
  std::vector<double> cells_;  // Pages that a VM may share, by VM.
};

// The least limit under which everything fits; where none is found, the one of kShare.
void spread(Arrangement& arrangement, const std::vector<std::uint32_t>& vms,
            InitialPlacement& placed) {
  constexpr int kTries = 7;
  Spread search(arrangement, vms);
  placed.peak_bound = std::max(search.bound(2.0), peak_of(arrangement));
  double low = placed.peak_bound;
  double high = 1;
  double found = 0;
  for (int i = 0; i < kTries; ++i) {
    // Close to the bound first: that is where it ends nearly always.
    const double limit = i == 0 ? low * 1.02 : (low + high) / 2;
    const std::size_t mark = arrangement.mark();
    const bool fits = search.fill(limit);
    arrangement.roll_back(mark);
    (fits ? high : low) = limit;
    if (fits) found = limit;
    if (fits && limit <= placed.peak_bound * 1.03) break;
  }
  if (found <= 0) return;
  Homes homes(arrangement, {.weights = {}, .moves_max = SIZE_MAX});
  const std::size_t mark = arrangement.mark();
  search.fill(found);
  std::vector<std::uint32_t> hosts;
  for (const std::uint32_t vm : vms) hosts.push_back(arrangement.host_of(vm));
  arrangement.roll_back(mark);
  for (std::size_t i = 0; i < vms.size(); ++i) {
    homes.move(arrangement.unit_of(std::span(&vms[i], 1)), hosts[i],
               "keeps the fullest host as empty as possible", placed.decision);
  }
}

void share(Arrangement& arrangement, const std::vector<std::uint32_t>& vms,
           InitialPlacement& placed) {
  Homes homes(arrangement,
              {.weights = {.sharing = 1, .hosts = 0.5, .balance = 0.1, .warmth = kWarmthWeight},
               .moves_max = SIZE_MAX});
  for (const std::uint32_t vm : vms) {
    if (arrangement.host_of(vm) != kNowhere) continue;
    const Unit unit = arrangement.unit(vm);
    const auto home = homes.best(unit);
    if (home) {
      homes.move(unit, home->host, "shares most there", placed.decision);
    } else {
      placed.decision.refusals.push_back({.vm = vm, .reason = homes.why_not(unit)});
    }
  }
}

}  // namespace

InitialPlacement place(Arrangement& arrangement, const PlacementRequest& request) {
  InitialPlacement placed;
  const std::vector<std::uint32_t> vms = largest_first(arrangement, request.vms);
  if (request.goal == PlacementRequest::Goal::kSpread && !vms.empty()) {
    spread(arrangement, vms, placed);
  }
  if (placed.decision.steps.empty()) share(arrangement, vms, placed);
  placed.peak = peak_of(arrangement);
  return placed;
}

}  // namespace samepage::placer
