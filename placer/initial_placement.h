#pragma once

#include <cstdint>
#include <vector>

#include "placer/homes.h"

namespace samepage::placer {

struct PlacementRequest {
  std::vector<std::uint32_t> vms;  ///< In the scene, on no host yet.

  enum class Goal : std::uint8_t {
    kShare,   ///< Where each shares most: fewest hosts at the end.
    kSpread,  ///< So that the fullest host is as empty as can be: a boot storm.
  };
  Goal goal = Goal::kShare;
};

struct InitialPlacement {
  Decision decision;      ///< One step for each VM that found a host; refusals for the others.
  double peak = 0;        ///< Of all hosts, the largest used part of memory, once all is merged.
  double peak_bound = 0;  ///< No placement of these VMs has a lower peak. For kSpread.
};

/// Places VMs that are to be started, one or a thousand, in one decision: 1,000 VMs on 100 hosts
/// take less than 0.1 s. Largest first, each to the host with the best score, in which a host's
/// warmth (SceneHost) counts as much as a third of the VM's pages being there; for kSpread with the
/// least limit on every host's memory under which all of them find room, found by bisection.
InitialPlacement place(Arrangement& arrangement, const PlacementRequest& request);

}  // namespace samepage::placer
