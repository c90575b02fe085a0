#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "placer/arrangement.h"

namespace samepage::placer {

/// The hosts that are worth a look when a unit is to be better off: all that are open, in a fleet
/// of up to kAll; in a larger one those that have most in common with it, and those with most room.
///
/// Invariant: hosts are named in ascending order, never the unit's own.
/// Threads: const methods may run at the same time. Lifetime: borrows the arrangement, and speaks
/// of it as it was when this was made.
class Prospects {
 public:
  static constexpr std::size_t kAll = 128;
  static constexpr std::size_t kMostAlike = 32;
  static constexpr std::size_t kRoomiest = 8;

  /// Call index_hosts() on a large arrangement before.
  explicit Prospects(const Arrangement& arrangement);

  std::vector<std::uint32_t> of(const Unit& unit) const;

 private:
  void add_most_alike(const Unit& unit, std::vector<std::uint32_t>& hosts) const;

  const Arrangement& arrangement_;
  std::vector<std::uint32_t> open_;
  std::vector<std::uint32_t> roomiest_;  // Few, of open_; empty in a small fleet.
};

}  // namespace samepage::placer
