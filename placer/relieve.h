#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "placer/homes.h"

namespace samepage::placer {

/// A host that is overloaded, as hotspot.h finds it.
struct HotHost {
  std::uint32_t host = 0;
  Resource resource = Resource::kCpu;
  std::string why;        ///< One sentence.
  bool outright = false;  ///< One VM leaves even if no resource is above its threshold.
};

struct ReliefOptions {
  /// A host above this part of any resource stays hot.
  double load_threshold = 0.75;
  double memory_threshold = 0.90;
  std::size_t moves_max = 20;
  std::size_t swap_partners_max = 3;  ///< VMs that may leave for one that arrives.
};

/// Takes load off hot hosts as Sandpiper does (Wood et al. 2009): hosts by decreasing volume, the
/// product of 1 / (1 - utilisation); of each the VM with the highest volume for its memory that
/// some host takes, to the host of least volume; where none takes it, it changes places with VMs of
/// little volume, by way of a third host if there is no room for both. A host that lacks memory
/// loses the VM that gains most sharing elsewhere (Wood et al., Memory Buddies, 2009): its memory
/// may be gone because its sharing is. Where one VM would do, one VM moves.
Decision relieve(Arrangement& arrangement, const std::vector<HotHost>& hot,
                 const ReliefOptions& options);

/// The product of 1 / (1 - u) over the resources.
double volume(const std::array<double, kResources>& utilisation);

}  // namespace samepage::placer
