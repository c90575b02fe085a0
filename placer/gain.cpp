#include "placer/gain.h"

#include <algorithm>
#include <cmath>

namespace samepage::placer {
namespace {

// The half towards zero: the interval is wider upwards than downwards where sketches are full.
double doubt_below(const Estimate& estimate) {
  return estimate.pages - estimate.low;
}
double doubt_above(const Estimate& estimate) {
  return estimate.high - estimate.pages;
}

}  // namespace

// The errors of the two estimates are taken as independent, which can only overstate the doubt:
// both come from the same sample of hashes, so most of their error is common and cancels out.
Gain gain_between(const Estimate& at_target, const Estimate& at_source) {
  return {.pages = at_target.pages - at_source.pages,
          .doubt = std::hypot(doubt_below(at_target), doubt_above(at_source)),
          .cost = 0,
          .moves = 1};
}

Gain gain_alone(Placement& placement, std::size_t vm, std::size_t target) {
  const Estimate at_target = placement.common(vm, target);
  Gain gain = gain_between(at_target, placement.common(vm, placement.host_of(vm)));
  const Vm& moved = placement.vm(vm);
  const double distinct = moved.fingerprint == nullptr
                              ? static_cast<double>(moved.memory_pages)
                              : static_cast<double>(moved.fingerprint->counts().unique);
  gain.cost = std::max(0.0, distinct - at_target.pages);
  return gain;
}

Worth judge(const Gain& gain, const PlanOptions& options) {
  if (gain.pages <= 0) return Worth::kNothing;
  if (gain.each() < static_cast<double>(options.gain_pages_min)) return Worth::kTooSmall;
  if (gain.pages <= gain.doubt) return Worth::kDoubtful;
  if (gain.cost > gain.pages * options.cost_per_gain_max) return Worth::kTooDear;
  return Worth::kYes;
}

}  // namespace samepage::placer
