#pragma once

#include <chrono>
#include <cstdint>
#include <map>
#include <optional>
#include <vector>

#include "core/bus.h"
#include "core/clock.h"
#include "core/hypervisor.h"
#include "fingerprinter/memory_shares.h"

namespace samepage::agent {

/// The physical frames behind this host's guests, and to whom the memory of each belongs. Counting
/// costs 70 ms of a core for each GiB that guests have touched (pagemap 15, kpageflags 42), so on
/// a large host it is not done for every report.
///
/// Invariant: all figures are of one count. Threads: one at a time.
class HostMemory {
 public:
  struct Options {
    /// Of the time that passes, counting may take so much; guests that come or leave and who asks
    /// have it done at once.
    double time_share = 0.05;
    bool observes_ksm = true;
  };

  HostMemory(const Options& options, const Clock& clock) : options_(options), clock_(clock) {}

  /// Counts anew where it may or `must`. What cannot be counted (no right to see frames, say) is
  /// logged, and is then not known.
  void renew(const std::vector<VmInfo>& vms, bool must);

  /// What was counted last, of the host and of the VMs that the report has already.
  void put(bus::HostReport& report) const;

 private:
  bool is_due(const std::vector<VmInfo>& vms) const;
  void count(const std::vector<VmInfo>& vms);

  const Options options_;
  const Clock& clock_;
  bus::HostMemory counted_;  ///< With the memory that is free, of the last renew().
  std::map<VmId, std::optional<fingerprinter::MemoryShares>> shares_;  ///< Of the VMs counted.
  std::chrono::steady_clock::time_point due_at_{};
};

}  // namespace samepage::agent
