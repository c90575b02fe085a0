#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "placer/arrangement.h"
#include "placer/decision.h"
#include "placer/improve.h"

namespace samepage::placer {

/// What moving a unit, or several that belong together, would change.
struct Gain {
  double pages = 0;  ///< Of sharing.
  double doubt = 0;  ///< Half of the 95 % interval of that.
  double cost = 0;   ///< Pages that the targets lack.
  double value = 0;  ///< All terms together by their weights, in pages.
  std::size_t moves = 0;

  double each() const { return moves == 0 ? 0 : value / static_cast<double>(moves); }
};

/// Of the pages that a unit shares, here or there.
struct Shared {
  double pages = 0;
  double doubt = 0;
  bool is_sure() const { return pages > doubt; }
};
Shared shared_at(const Arrangement& arrangement, const Unit& unit, std::uint32_t host,
                 std::span<const std::uint32_t> gone = {});

/// Of moving a unit to a host that it is not on, once the VMs `gone` have left that.
Gain gain_of(const Arrangement& arrangement, const Unit& unit, std::uint32_t target,
             const Weights& weights, std::span<const std::uint32_t> gone = {});
Gain operator+(const Gain& a, const Gain& b);

enum class Worth : std::uint8_t {
  kYes,
  kNothing,   ///< It is no better there than here.
  kDoubtful,  ///< Within what the estimates may be wrong by.
  kTooSmall,  ///< Below gain_pages_min.
  kTooDear,   ///< Above cost_per_gain_max.
};

Worth judge(const Gain& gain, const ImproveOptions& options);

}  // namespace samepage::placer
