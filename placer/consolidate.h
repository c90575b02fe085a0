#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "placer/homes.h"
#include "placer/rules.h"

namespace samepage::placer {

struct ConsolidationOptions {
  /// Hosts whose memory was used less than this, on average and over the time that the caller
  /// looked back, may be freed.
  double low_memory = 0.50;
  std::size_t moves_max = 100;
  std::size_t hosts_max = 1'000;  ///< Hosts that one plan may free.

  /// So many hosts in a row that cannot be freed, and the fuller ones are not tried.
  std::size_t failures_max = 50;

  /// Pages that may cross the wire, after dedup, for each page of memory that a freed host frees.
  double cost_per_freed_max = 1.0;
};

/// Frees hosts (Memory Buddies' consolidation, Wood et al. 2009): those that were little used are
/// emptied one after the other, least used first; their VMs, largest first, go to the hosts that
/// share most with them; where none has room somebody there moves on first. A host is freed whole
/// or not at all. `mean_memory` is the mean utilisation of each host's memory, from 0 to 1; empty:
/// that of now.
Decision consolidate(Arrangement& arrangement, const std::vector<double>& mean_memory,
                     const ConsolidationOptions& options);

/// Empties hosts because they are to be empty (maintenance, `samepage drain`): whoever finds a home
/// moves, the others are refused with the reason.
Decision drain(Arrangement& arrangement, const std::vector<std::uint32_t>& hosts,
               std::size_t moves_max);

/// The fewest moves found that make broken rules hold again, and hosts in maintenance empty.
Decision repair(Arrangement& arrangement, const std::vector<Rule>& rules, std::size_t moves_max);

/// Moves that take every VM to its target (by VM; kNowhere or where it is: it stays), ordered so
/// that each fits on its turn. Where VMs block each other in a circle, one waits on a third host.
/// VMs that cannot get there are refused, with the reason.
Decision sequence(Arrangement& arrangement, const std::vector<std::uint32_t>& targets,
                  std::size_t moves_max);

}  // namespace samepage::placer
