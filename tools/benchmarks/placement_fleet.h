#pragma once

#include <cstddef>
#include <cstdint>
#include <iosfwd>

#include "core/result.h"
#include "placer/packing/problem.h"

namespace samepage::bench {

struct FleetRun {
  std::size_t hosts = 20;
  std::size_t vms = 200;
  long budget_ms = 10'000;
  unsigned threads = 2;
  std::uint64_t seed = 1;
};

/// A fleet with sharing of the published kind (Wood et al. 2009, table 1): four sorts of
/// applications whose VMs share 41, 22, 15 and 5 % of their memory with others of the sort, each on
/// one of a few operating systems (the tree model of Sindelar et al. 2011); hosts of 64 GiB. Where
/// VMs are, nobody cared about sharing: each went to the host where it fitted tightest by its size.
struct MadeFleet {
  placer::PackProblem problem;
  std::vector<std::uint32_t> now;
};
MadeFleet make_fleet(const FleetRun& run);

/// Plans the whole fleet anew within the budget. kIo: the plan breaks a promise.
Result<void> run_fleet(const FleetRun& run, std::ostream& out);

/// Asks for the best host of random VMs of such a fleet.
Result<void> run_index(const FleetRun& run, std::size_t queries, std::ostream& out);

}  // namespace samepage::bench
