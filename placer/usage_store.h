#pragma once

#include <chrono>
#include <vector>

#include "core/clock.h"
#include "core/database.h"
#include "core/result.h"
#include "placer/roster.h"

namespace samepage::placer {

/// What hosts and VMs used lately, in the placer's SQLite file, so that a restart forgets nothing.
/// Bounded by age. Threads, lifetime and errors: as Registry.
class UsageStore {
 public:
  struct Options {
    std::chrono::hours age_max{24};
    std::size_t restored_max = 1'000'000;  ///< Rows, the newest.
  };

  UsageStore(const Options& options, Database& database, const Clock& clock)
      : options_(options), database_(database), clock_(clock) {}

  /// Adds observations, and drops those that are too old.
  Result<void> add(const std::vector<UsageSample>& samples);

  /// Everything, oldest first.
  Result<std::vector<UsageSample>> all();

 private:
  Options options_;
  Database& database_;
  const Clock& clock_;
};

}  // namespace samepage::placer
