#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "placer/cooldown.h"
#include "placer/packing/random.h"
#include "placer/rules.h"
#include "placer/usage.h"

namespace samepage::placer {

/// A load over simulated time: base + amplitude * sine, times noise; or steps.
struct LoadShape {
  double base = 0;
  double amplitude = 0;
  double period_s = 86'400;
  double phase_s = 0;
  double noise = 0;  ///< 0.1: up to a tenth more or less, anew in each interval.
  std::vector<std::pair<double, double>> steps;  ///< From a second on, this instead of base.

  double at(double second, Random& random) const;
};

struct PoolPages {
  std::string pool;
  double pages = 0;
};

/// What a VM's memory holds from a second on.
struct MemoryMix {
  double at_s = 0;
  double own_pages = 0;
  std::vector<PoolPages> pools;
};

struct ScenarioVm {
  std::string name;
  std::string host;               ///< Empty: it is placed when it arrives.
  std::vector<MemoryMix> memory;  ///< Ascending; the first at 0.
  std::array<LoadShape, kLoads> loads;
  double arrives_s = 0;
  double leaves_s = 1e18;
};

struct ScenarioEvent {
  enum class Kind : std::uint8_t { kDown, kUp, kDrain };
  Kind kind = Kind::kDown;
  double at_s = 0;
  std::string host;
};

struct ScenarioPolicy {
  enum class Placement : std::uint8_t { kShare, kSize };
  Placement placement = Placement::kShare;  ///< kSize: the tightest host by size, as schedulers do.
  bool make_room = true;                    ///< A VM that arrives may have others moved.
  bool hotspots = true;
  double consolidate_every_s = 0;  ///< 0: never.
  double headroom = 0.10;
  double load_max = 0.70;  ///< A host takes VMs up to this part of CPU, network and disk.
  HotspotOptions hotspot;
  Cooldowns::Options cooldown;
  double return_after_s = 3'600;  ///< A VM does not go back to a host that it left sooner.
  double low_memory = 0.50;       ///< consolidate()'s threshold.
  std::size_t moves_max = 20;     ///< Of one decision.
  std::size_t at_once_max = 4;    ///< Migrations in the fleet, and on one host.
  std::size_t at_once_per_host = 1;
  double link_bytes_s = 125e6;
  double merge_s = 60;  ///< Until an arrived VM's pages are merged.
  double lies = 0;      ///< Part of the reports that hold an impossible number.
};

/// A fleet and what befalls it, written down: docs/formats/scenario.md.
struct Scenario {
  std::string name;
  std::uint64_t seed = 1;
  double interval_s = 10;
  double duration_s = 3'600;
  std::size_t words = 64;  ///< Of every VM's bitmap.
  double pages_per_cell = 1'024;
  std::vector<SceneHost> hosts;
  std::vector<ScenarioVm> vms;
  std::vector<Rule> rules;

  /// What VMs use on hosts of another class than where they began. The simulated VMs do, and
  /// decisions count with it.
  std::vector<ClassModel> class_models;
  std::vector<ScenarioEvent> events;
  ScenarioPolicy policy;
};

}  // namespace samepage::placer
