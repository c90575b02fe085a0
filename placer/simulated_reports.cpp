#include "placer/simulated_reports.h"

#include <array>
#include <limits>
#include <utility>

namespace samepage::placer {
namespace {

constexpr std::size_t kHostWindow = 60;

}  // namespace

SimulatedReports::SimulatedReports(const ScenarioPolicy& policy, std::size_t hosts, Random& random)
    : policy_(policy), random_(random), usage_(hosts, HostUsage(kHostWindow)) {}

bool SimulatedReports::add(std::uint32_t host, const PackBin& bin, const Loads& loads,
                           double pages) {
  bool overloaded = false;
  for (std::size_t i = 0; i < kResources; ++i) {
    const double capacity = i < kLoads ? bin.loads.at(i) : bin.capacity;
    const double used = i < kLoads ? loads.at(i) : pages;
    const double part = capacity > 0 ? used / capacity : 0;
    overloaded = overloaded || part > policy_.hotspot.threshold.at(i);
    const bool lies = random_.unit() < policy_.lies;
    if (!usage_[host].series.at(i).add(lies ? lie() : part)) ++lies_left_out_;
  }
  return overloaded;
}

double SimulatedReports::lie() {
  constexpr std::array kLies{-1.0, std::numeric_limits<double>::quiet_NaN(),
                             std::numeric_limits<double>::infinity()};
  return kLies.at(random_.below(kLies.size()));
}

std::vector<HotHost> SimulatedReports::hot_hosts(const Scene& scene) const {
  std::vector<HotHost> hot;
  if (!policy_.hotspots) return hot;
  for (std::uint32_t host = 0; host < scene.hosts.size(); ++host) {
    if (!scene.hosts[host].is_up) continue;
    auto found = find_hotspot(usage_[host], scene.hosts[host].name, policy_.hotspot);
    if (found) {
      hot.push_back({.host = host, .resource = found->resource, .why = std::move(found->why)});
    }
  }
  return hot;
}

std::vector<double> SimulatedReports::mean_memory() const {
  std::vector<double> mean;
  for (const HostUsage& usage : usage_) mean.push_back(usage.series.back().mean());
  return mean;
}

}  // namespace samepage::placer
