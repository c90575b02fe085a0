#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "placer/relieve.h"
#include "placer/scenario.h"
#include "placer/usage.h"

namespace samepage::placer {

/// What the hosts of a simulation say that they use, which is all that decisions know of it: some
/// of it is no possible number, as often as the policy says. Outlived by the policy and the
/// generator. Threads: none of its own.
class SimulatedReports {
 public:
  SimulatedReports(const ScenarioPolicy& policy, std::size_t hosts, Random& random);

  /// What a host uses now of CPU, network and disk, and pages. Says whether it truly is overloaded.
  bool add(std::uint32_t host, const PackBin& bin, const Loads& loads, double pages);

  /// Hosts that are up and hot, if the policy looks for them.
  std::vector<HotHost> hot_hosts(const Scene& scene) const;

  std::vector<double> mean_memory() const;

  std::size_t lies_left_out() const { return lies_left_out_; }

 private:
  double lie();

  const ScenarioPolicy& policy_;
  Random& random_;
  std::vector<HostUsage> usage_;
  std::size_t lies_left_out_ = 0;
};

}  // namespace samepage::placer
