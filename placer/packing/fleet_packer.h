#pragma once

#include "placer/packing/packer.h"

namespace samepage::placer {

/// pack() for fleets: up to hundreds of thousands of items. Two steps: items, largest first, go to
/// the bin that has most of them already (SharingIndex finds it among all bins); then
/// neighbourhoods of bins that have much in common, and bins with little in them, are packed anew
/// by pack() while time is left, each time trying to empty one bin of the dozen. Same promises as
/// pack(); with more than one thread a packing repeats for a seed only up to the order in which
/// threads finish.
Packing pack_fleet(const PackProblem& problem, const PackOptions& options,
                   const Packing* start = nullptr);

}  // namespace samepage::placer
