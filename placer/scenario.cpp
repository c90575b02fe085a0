#include "placer/scenario.h"

#include <algorithm>
#include <cmath>
#include <numbers>

namespace samepage::placer {

double LoadShape::at(double second, Random& random) const {
  double level = base;
  for (const auto& [from, value] : steps) {
    if (second >= from) level = value;
  }
  level +=
      amplitude * std::sin(2 * std::numbers::pi * (second + phase_s) / std::max(period_s, 1.0));
  if (noise > 0) level *= 1 + noise * (2 * random.unit() - 1);
  return std::max(0.0, level);
}

}  // namespace samepage::placer
