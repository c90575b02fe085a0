#pragma once

#include <chrono>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "core/clock.h"
#include "core/database.h"
#include "core/result.h"
#include "placer/fleet.h"

namespace samepage::placer {

/// One moment of a host on which KSM runs: what its VMs' fingerprints promised, and what the count
/// of frames found. Pages of 4 KiB.
struct SharingPoint {
  std::string host;
  std::chrono::system_clock::time_point at;
  std::uint64_t vms = 0;
  double predicted_pages = 0;
  double low_pages = 0;  ///< The prediction's 95 % interval.
  double high_pages = 0;
  std::uint64_t achieved_pages = 0;
  std::uint64_t ksm_full_scans = 0;  ///< The kernel's counter: how far KSM has had time.
};

/// Predictions and what came of them, in the placer's SQLite file. Threads and lifetime: as
/// Journal. Errors of every method: as Statement's.
class SharingHistory {
 public:
  struct Options {
    std::size_t points_per_host_max = 2'000;
  };

  SharingHistory(const Options& options, Database& database, const Clock& clock)
      : options_(options), database_(database), clock_(clock) {}

  /// Keeps how a host is now; the oldest points make room. Does nothing where KSM does not run, a
  /// VM has no fingerprint, or KSM has not ended a pass since the point before.
  Result<void> note(const Fleet& fleet, const std::string& host);

  /// The newest points, newest first; of all hosts when `host` is empty.
  Result<std::vector<SharingPoint>> newest(std::string_view host, std::size_t count);

 private:
  Options options_;
  Database& database_;
  const Clock& clock_;
};

}  // namespace samepage::placer
