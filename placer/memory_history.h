#pragma once

#include <chrono>
#include <cstddef>
#include <vector>

#include "core/clock.h"
#include "core/database.h"
#include "core/result.h"
#include "placer/roster.h"

namespace samepage::placer {

/// How the memory of VMs went over time, in the placer's SQLite file: how a fork's sharing with its
/// template fades as it writes, and what KSM wins back.
///
/// Bounded by age and by points, and thinned: a sample that says nothing new is left out.
/// Threads, lifetime and errors: as Registry.
class MemoryHistory {
 public:
  struct Options {
    std::chrono::hours age_max{24 * 7};
    std::size_t points_per_vm_max = 1'000;

    /// A sample is kept when a figure has changed by so much of all its pages, or 1 MiB if that is
    /// more; when the VM is on another host; and after `silence_max` whatever it says.
    double change_min = 1.0 / 256;
    std::chrono::minutes silence_max{10};
  };

  MemoryHistory(const Options& options, Database& database, const Clock& clock)
      : options_(options), database_(database), clock_(clock) {}

  /// The samples of one VM oldest first.
  Result<void> add(const std::vector<MemorySample>& samples);

  /// The newest, newest first.
  Result<std::vector<MemorySample>> newest(const VmId& vm, std::size_t count);

 private:
  bool is_news(const MemorySample& sample, const MemorySample& before) const;

  Options options_;
  Database& database_;
  const Clock& clock_;
};

}  // namespace samepage::placer
