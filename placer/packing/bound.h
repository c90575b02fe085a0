#pragma once

#include <cstddef>

#include "placer/packing/problem.h"

namespace samepage::placer {

/// A number of bins that no packing of all items can go below. The largest of three bounds:
///   - volume: every own page, and every cell as often as some bin must hold it. The items that
///     have a cell share their bins with all of its holder's cells, so each needs at least (its own
///     pages) / (a bin's pages less its cells) of a bin;
///   - loads: the sum of each load over the largest bin's;
///   - conflicts: items that no bin can take two of at once (a clique, found greedily).
/// Rules about bins are left out, which keeps it a bound. Cost: items * cells + items^2 for the
/// clique, which is left out above 5,000 items.
std::size_t bins_bound(const PackProblem& problem);

}  // namespace samepage::placer
