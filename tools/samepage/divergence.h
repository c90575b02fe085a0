#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "core/fd.h"
#include "core/result.h"
#include "fingerprinter/block_trace.h"
#include "fingerprinter/ram_comparison.h"
#include "tools/samepage/boot_machine.h"

namespace samepage::cli {

/// What may be made the same for all boots of a set.
struct DivergenceSetting {
  std::string name;  ///< "none", "nokaslr", ..., "all"
  bool nokaslr = false;
  bool fixed_seeds = false;
  bool fixed_clock = false;
};

/// "nokaslr", "fixed-seeds", "fixed-clock". kInvalid: it is none of them.
Result<DivergenceSetting> parse_setting(const std::string& name);

/// The sets of boots that settings ask for: none of them, each alone, and when there are several,
/// all together.
std::vector<DivergenceSetting> sets_of(const std::vector<DivergenceSetting>& settings);

struct DivergencePlan {
  BootMachineOptions machine;
  unsigned boots = 3;
  std::vector<double> at_s;  ///< Rising: when to look, in seconds after the start.
  std::string ready_when;    ///< Look, too, when this appears on the serial line; empty: never.
  std::vector<DivergenceSetting> sets;
  std::size_t blocks = 0;  ///< Of the kernel's code, whose execution is compared; 0: none.
  double time_max_s = 600;
  std::string scratch = "/var/tmp";
};

/// How alike the boots of a set were at one moment: means per boot, over all pairs.
struct DivergenceMoment {
  std::string name;    ///< "ready", or seconds: "10 s"
  double ran_s = 0;    ///< After how much the boots were there.
  unsigned pairs = 0;  ///< Ordered ones: what `sum` is the sum of.
  fingerprinter::Divergence sum;
  std::string why_unnamed;  ///< Empty when every boot's pages were named.

  /// Of pages, as the mean per boot and pair.
  double mib(std::uint64_t pages) const;
  /// Of different pages, those that have a name; 1 when none differs.
  double named_share() const;
};

struct DivergenceSet {
  DivergenceSetting setting;
  std::vector<DivergenceMoment> moments;
  std::optional<fingerprinter::ExecutionLikeness> execution;

  /// MiB a boot that merging equal pages with another boot can share at the last moment.
  double shareable_mib() const;
};

/// Told of a step, and how far all is, from 0 to 1; false ends it.
using DivergenceProgress = std::function<bool(const std::string& step, double fraction)>;

/// Boots and compares. The VMs run one after the other; nothing of them is left afterwards.
/// kUnavailable: a boot ended, or progress said to end. kTimedOut: the pattern did not appear in
/// time. Others: BootMachine's.
Result<std::vector<DivergenceSet>> measure_divergence(const DivergencePlan& plan,
                                                      const DivergenceProgress& progress);

}  // namespace samepage::cli
