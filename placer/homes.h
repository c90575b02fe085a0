#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "placer/arrangement.h"
#include "placer/decision.h"

namespace samepage::placer {

/// Finds VMs a host and moves them there: what every decision is made of.
///
/// Threads: none of its own. Lifetime: borrows the arrangement, which it changes.
class Homes {
 public:
  struct Options {
    Weights weights;
    std::size_t moves_max = 100;

    /// Hosts looked at, best first, when somebody must make room there.
    std::size_t crowded_hosts_max = 16;
  };

  struct Home {
    std::uint32_t host = 0;
    Terms terms;
    double score = 0;
  };

  Homes(Arrangement& arrangement, const Options& options);

  /// Hosts that are out of the question for now.
  void exclude(std::uint32_t host) { excluded_[host] = true; }
  void include(std::uint32_t host) { excluded_[host] = false; }
  bool is_excluded(std::uint32_t host) const { return excluded_[host]; }

  /// The best host that takes the unit and that it is not on.
  std::optional<Home> best(const Unit& unit) const;

  /// Moves the unit and writes the steps down. Counts against moves_max, as settle_in() does.
  void move(const Unit& unit, std::uint32_t target, const std::string& why, Decision& decision);

  /// Moves the unit to its best host; where none has room, first moves somebody else out of one.
  /// False: nothing was done, and why_not() says why.
  bool settle_in(const Unit& unit, const std::string& why, Decision& decision);

  /// Why no host takes the unit: the one that comes closest, in one sentence.
  std::string why_not(const Unit& unit) const;

  bool is_movable(const Unit& unit) const;
  Arrangement& arrangement() { return arrangement_; }

 private:
  std::vector<std::uint16_t> common_cells(const Unit& unit) const;
  Terms terms(const Unit& unit, std::uint32_t host, double common) const;
  bool make_room(const Unit& unit, const std::string& why, Decision& decision);
  bool make_room_on(std::uint32_t host, const Unit& unit, const std::string& why,
                    Decision& decision);

  Arrangement& arrangement_;
  Options options_;
  std::vector<bool> excluded_;
};

}  // namespace samepage::placer
