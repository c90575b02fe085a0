#pragma once

#include <cstddef>
#include <cstdint>
#include <iosfwd>

#include "core/result.h"
#include "placer/decision.h"

namespace samepage::bench {

struct PlanRun {
  std::size_t hosts = 20;
  std::size_t vms = 200;
  placer::Goal goal = placer::Goal::kHosts;
  long search_ms = 5'000;
  std::size_t moves_max = 100;
  unsigned threads = 2;
  std::uint64_t seed = 1;

  /// Part of its memory that a VM shares with those of its application, and nothing else with
  /// anybody; below 0: as published, by application.
  double shared = -1;
};

/// Has placer::plan() plan a whole fleet, from fingerprints as agents report them to the sentences
/// that say why each VM stays. VMs of 1.6 to 17.6 GiB share as those of placement_fleet.h do; their
/// fingerprints have the size and the fill of real ones. kIo: a VM is not in the plan exactly as it
/// should be.
Result<void> run_plan(const PlanRun& run, std::ostream& out);

}  // namespace samepage::bench
