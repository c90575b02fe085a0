#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>

#include "placer/packing/problem.h"

namespace samepage::placer {

struct PackOptions {
  std::chrono::microseconds budget{100'000};  ///< Of wall-clock time, construction included.

  /// Of the search, per thread. A search that ends by rounds and not by the budget gives the same
  /// packing for the same seed on every machine.
  std::size_t rounds_max = SIZE_MAX;
  std::uint64_t seed = 1;
  unsigned threads = 1;         ///< Searches with different seeds; the best packing wins.
  std::size_t bins_enough = 0;  ///< Stop there, for instance at bins_bound().
};

/// Packs the items into as few bins as it finds within the budget, and leaves out as few as it must
/// where the bins are too few. Pure but for the clock. The algorithm is described in packer.cpp.
///
/// `start`, when given, is a valid packing to improve on; the result is never worse.
Packing pack(const PackProblem& problem, const PackOptions& options,
             const Packing* start = nullptr);

/// What schedulers and the literature do, to compare with. Each is one pass over the items.
enum class Heuristic : std::uint8_t {
  kFirstFit,       ///< In the given order, the first bin with room.
  kBestFitBySize,  ///< Largest first, the bin that is left fullest; sharing is not looked at when
                   ///< choosing, only when measuring what fits. What schedulers do.
  kBestFusion,     ///< The bin with the largest part of the item in common (Grange et al.).
  kMemoryBuddies,  ///< Largest first, the bin that shares most pages (Wood et al. 2009).
};
Packing pack_by(Heuristic heuristic, const PackProblem& problem);

}  // namespace samepage::placer
