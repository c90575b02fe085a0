#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "placer/arrangement.h"
#include "placer/decision.h"
#include "placer/prospects.h"

namespace samepage::placer {

struct ImproveOptions {
  Weights weights;  ///< What is gained: sharing alone, unless they say otherwise.

  /// What every move must gain, in pages, on average over moves that belong together.
  double gain_pages_min = 1'024;

  /// Pages that may cross the wire, after dedup, for each page gained. The gain lasts as long as
  /// the VMs do, the transfer is paid once; so many to one is where the trouble stops being worth
  /// it.
  double cost_per_gain_max = 16;
  std::size_t moves_max = 100;
  std::size_t group_max = 8;  ///< VMs that may move together where none gains by moving alone.
  unsigned threads = 1;
};

/// Moves that make the arrangement better by the weights: one by one, changing places where there
/// is no room for both, together where VMs hold each other back. A gain counts with what its
/// estimate promises at least. VMs for which `has_moved` says so are left alone, and each VM moves
/// once. In a fleet of more than Prospects::kAll hosts it looks at the most promising only.
Decision improve(Arrangement& arrangement, std::vector<bool> has_moved,
                 const ImproveOptions& options);

/// Why improve() leaves a VM where it is, in one sentence. `may_move`: it was not moved already.
struct Stayed {
  std::string reason;
  std::string cause;              ///< As Stay's.
  std::uint32_t best = kNowhere;  ///< The best other place.
  double gain_pages = 0;          ///< Of going there.
};
Stayed why_stays(const Arrangement& arrangement, const Prospects& prospects, std::uint32_t vm,
                 const ImproveOptions& options);

}  // namespace samepage::placer
