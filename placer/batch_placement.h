#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "core/result.h"
#include "placer/fleet.h"
#include "placer/initial_placement.h"
#include "placer/planner.h"

namespace samepage::placer {

/// VMs that are to be started and resemble each other: an image family, copies of a template.
struct BatchRequest {
  std::size_t count = 1;
  std::string name = "vm";         ///< They are called vm1, vm2, ... in answers and rules.
  std::uint64_t memory_pages = 0;  ///< Of each, all of it; 0: as `like`.
  std::string like = {};           ///< A VM whose memory theirs will resemble; empty: unknown.

  /// The part of `like`'s pages that each will have too; the rest of its memory is its own.
  double likeness = 1;
  double cores = 0;  ///< That each will use.

  /// From 0 to 1, by host: how much of what they read when they start is there already.
  std::map<std::string, double> warmth = {};
  PlacementRequest::Goal goal = PlacementRequest::Goal::kSpread;
};

struct BatchPlacement {
  std::vector<std::string> hosts = {};     ///< By VM; empty where none has room.
  std::vector<std::string> refusals = {};  ///< A sentence for each that found none.
  double peak = 0;        ///< Of all hosts, the largest used part of memory, once all is merged.
  double peak_bound = 0;  ///< No placement has a lower peak; for kSpread.
};

/// Where to start a batch. Reserves nothing: ask again when the fleet has changed. kNotFound: there
/// is no VM like that. kInvalid: the request has impossible numbers, or rules that cannot hold.
Result<BatchPlacement> place_batch(const Fleet& fleet, const BatchRequest& request,
                                   const PlanOptions& options);

}  // namespace samepage::placer
