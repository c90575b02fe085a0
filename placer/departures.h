#pragma once

#include <cstddef>
#include <vector>

#include "placer/journal.h"

namespace samepage::placer {

/// How many moves of a plan may go on at the same time.
struct MoveLimits {
  std::size_t at_once = 1;   ///< In the fleet; at least 1.
  std::size_t per_host = 1;  ///< That a host sends or receives, together; at least 1.
  std::size_t per_link = 1;  ///< Between the same two hosts, either way; at least 1.
};

/// The moves that may begin now, by their positions, beside those that are written as running.
///
/// A plan's moves are in an order in which each fits on its turn. A move may overtake earlier ones,
/// for instance while their hosts are busy, but not one of the same VM, nor one that leaves the
/// host that it goes to: that may be what makes room there, or what a rule keeps apart from it. So
/// a host never holds more than it would if the moves were made one by one.
std::vector<std::size_t> departures(const std::vector<MoveRecord>& moves, const MoveLimits& limits);

}  // namespace samepage::placer
