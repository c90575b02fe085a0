#include "placer/gain.h"

#include <algorithm>
#include <cmath>

namespace samepage::placer {
namespace {

// Of its scarcest resource, what a host has left.
double left_of(const std::array<double, kResources>& used) {
  return std::clamp(1 - *std::max_element(used.begin(), used.end()), 0.0, 1.0);
}

// As if the unit were there, with nothing of it merged but what is there already.
std::array<double, kResources> used_with(const Arrangement& arrangement, const Unit& unit,
                                         std::uint32_t host, double added) {
  std::array<double, kResources> used = arrangement.utilisation(host);
  const PackBin& bin = arrangement.scene().hosts[host].bin;
  const Loads loads = arrangement.loads_on(unit, host);
  for (std::size_t i = 0; i < kLoads; ++i) {
    if (bin.loads.at(i) > 0) used.at(i) += loads.at(i) / bin.loads.at(i);
  }
  if (bin.capacity > 0) used.back() += added / bin.capacity;
  return used;
}

}  // namespace

Shared shared_at(const Arrangement& arrangement, const Unit& unit, std::uint32_t host,
                 std::span<const std::uint32_t> gone) {
  const Scene& scene = arrangement.scene();
  Shared shared{.pages = arrangement.common(unit.demand, host, gone)};
  shared.doubt =
      scene.error(scene.pages(unit.demand.cells), arrangement.merged(host), shared.pages);
  return shared;
}

// The errors of the two estimates are taken as independent, which can only overstate the doubt:
// both come from the same sample of hashes, so most of their error is common and cancels out.
Gain gain_of(const Arrangement& arrangement, const Unit& unit, std::uint32_t target,
             const Weights& weights, std::span<const std::uint32_t> gone) {
  const std::uint32_t source = arrangement.host_of(unit.vms.front());
  const double size = arrangement.scene().pages(unit.demand);
  const Shared there = shared_at(arrangement, unit, target, gone);
  const Shared here = shared_at(arrangement, unit, source, unit.vms);
  Gain gain{.pages = there.pages - here.pages,
            .doubt = std::hypot(there.doubt, here.doubt),
            .cost = std::max(0.0, size - there.pages),
            .moves = unit.vms.size()};
  gain.value = weights.sharing * gain.pages - weights.movement * gain.cost;
  if (weights.hosts == 0 && weights.balance == 0) return gain;
  const auto now = arrangement.utilisation(source);
  const auto then = used_with(arrangement, unit, target, gain.cost);
  const double fuller = arrangement.on(target).empty() ? -1 : then.back() - now.back();
  gain.value += size * (weights.hosts * std::clamp(fuller, -1.0, 1.0) +
                        weights.balance * (left_of(then) - left_of(now)));
  return gain;
}

Gain operator+(const Gain& a, const Gain& b) {
  return {.pages = a.pages + b.pages,
          .doubt = std::hypot(a.doubt, b.doubt),
          .cost = a.cost + b.cost,
          .value = a.value + b.value,
          .moves = a.moves + b.moves};
}

Worth judge(const Gain& gain, const ImproveOptions& options) {
  if (gain.value <= 0) return Worth::kNothing;
  if (gain.each() < options.gain_pages_min) return Worth::kTooSmall;
  // Of many places the best looks best by luck, too.
  const double sure = gain.value - options.weights.sharing * gain.doubt;
  const double sure_min = options.gain_pages_min * static_cast<double>(gain.moves);
  if (sure < sure_min) return Worth::kDoubtful;
  if (gain.cost > sure * options.cost_per_gain_max) return Worth::kTooDear;
  return Worth::kYes;
}

}  // namespace samepage::placer
