#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "placer/packing/problem.h"

namespace samepage::placer {

/// Gives a packing's bins the numbers under which most items stay where they were (kNowhere: they
/// were nowhere). Only bins that could change places are renumbered: those of equal size, none of
/// whose items is tied to a bin. Greedy, largest overlap first; returns the number of items that
/// still move.
std::size_t match_bins(const PackProblem& problem, const std::vector<std::uint32_t>& before,
                       Packing& packing);

}  // namespace samepage::placer
