#pragma once

#include <cstddef>
#include <cstdint>

#include "placer/placement.h"

namespace samepage::placer {

/// What one move, or several that belong together, would change in the predicted sharing.
struct Gain {
  double pages = 0;
  double doubt = 0;  ///< Half of the 95 % interval.
  double cost = 0;   ///< Pages that the targets lack.
  std::size_t moves = 0;

  double each() const { return moves == 0 ? 0 : pages / static_cast<double>(moves); }
};

/// Pages shared at the target less those shared at the source.
Gain gain_between(const Estimate& at_target, const Estimate& at_source);

/// Of moving one VM to a host that it is not on.
Gain gain_alone(Placement& placement, std::size_t vm, std::size_t target);

enum class Worth : std::uint8_t {
  kYes,
  kNothing,   ///< It shares no more there than here.
  kDoubtful,  ///< Within what the estimates may be wrong by.
  kTooSmall,  ///< Below gain_pages_min.
  kTooDear,   ///< Above cost_per_gain_max.
};

Worth judge(const Gain& gain, const PlanOptions& options);

}  // namespace samepage::placer
