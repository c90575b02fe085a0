#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "core/result.h"

namespace samepage::placer {

/// A host that takes part in a boot storm.
struct StormHost {
  std::string name;
  std::uint64_t capacity_bytes = 0;
  std::uint64_t used_bytes = 0;  ///< By VMs that are there: what they are configured for.
  unsigned boots_at_once = 4;
  bool has_template = false;       ///< Its RAM file lies there: nothing has to be fetched.
  std::uint64_t shared_bytes = 0;  ///< Of the template or image that VMs there hold already.
};

/// N VMs of one template or image, to be booted at once.
struct Storm {
  std::size_t count = 0;
  std::uint64_t vm_bytes = 0;  ///< Each may come to need all of its memory.

  /// A template's RAM file, once on every host that boots; 0 for cold boots.
  std::uint64_t template_bytes = 0;
  std::chrono::milliseconds boot{400};        ///< One boot, alone.
  std::chrono::milliseconds fetch{2'000};     ///< Getting the template onto a host.
  std::chrono::milliseconds cold_reading{0};  ///< The first boot on a host that holds no data.
};

struct StormPlacement {
  std::vector<std::size_t> host_of;  ///< By VM; an index into the hosts.

  struct Share {
    std::size_t vms = 0;
    std::chrono::milliseconds ends_at{0};  ///< Foreseen.
    double used_after = 0;                 ///< Of its capacity.
    std::string reason;                    ///< Why it got these, or none.
  };
  std::vector<Share> shares;  ///< By host.
  double peak = 0;            ///< The highest used_after.
  double peak_bound = 0;      ///< No placement of this storm has a lower peak.
};

/// Places a whole storm in one decision. Memory comes first: no host is used beyond 1.05 times the
/// lowest peak that is possible at all, and none beyond its capacity. Within that every VM goes
/// where it will run soonest, so hosts that hold the template come first, and others join when
/// waiting in line would take longer than fetching it.
///
/// Pure, O((hosts + VMs) log hosts). List scheduling as in R. L. Graham, "Bounds on
/// Multiprocessing Timing Anomalies", SIAM J. Appl. Math. 17(2), 1969.
/// kUnavailable: the hosts have not enough memory; the message says how many VMs they could take.
Result<StormPlacement> place_storm(const Storm& storm, const std::vector<StormHost>& hosts);

}  // namespace samepage::placer
