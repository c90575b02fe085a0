#pragma once

#include <cstdint>
#include <string>

#include "placer/packing/problem.h"

namespace samepage::placer {

/// What decisions are made on, beside Loads: memory comes last where all four are listed.
enum class Resource : std::uint8_t { kCpu, kNetwork, kDisk, kMemory };
inline constexpr std::size_t kResources = kLoads + 1;
std::string_view to_string(Resource resource);  ///< "CPU", "network", "disk", "memory"

/// An overhead model (overhead_model.h) as plans use it: what a VM that was measured on hosts of
/// one class uses of one resource on hosts of another, from the three loads that are known of every
/// VM: cores, and bytes a second of network and disk.
struct ClassModel {
  std::int64_t id = 0;
  std::string source;  ///< Host::hardware.
  std::string target;
  Resource of = Resource::kCpu;  ///< Not memory.
  double constant = 0;
  Loads factors{};
  double median_error_pct = 0;  ///< Of rows that it was not fitted to.
  double p90_error_pct = 0;
};

/// What the VM uses on the target's class when it was measured with these loads on the source's;
/// never below 0.
inline double predict(const ClassModel& model, const Loads& measured) {
  double load = model.constant;
  for (std::size_t i = 0; i < kLoads; ++i) load += model.factors.at(i) * measured.at(i);
  return load > 0 ? load : 0;
}

}  // namespace samepage::placer
