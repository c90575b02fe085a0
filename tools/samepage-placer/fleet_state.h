#pragma once

#include <set>
#include <string>
#include <vector>

#include "core/bus.h"
#include "core/clock.h"
#include "core/mutex.h"
#include "placer/policy_store.h"
#include "placer/roster.h"

namespace samepage::control {

/// The roster behind a lock, fed with the bus's messages.
/// Threads: every method may be called from any thread. Errors as placer::Roster's.
class FleetState {
 public:
  FleetState(const placer::Roster::Options& options, const Clock& clock)
      : roster_(options, clock) {}

  Result<void> enroll(const std::string& host);
  Result<void> forget(const std::string& host);
  Result<void> hello(const std::string& host, const bus::Hello& hello);

  /// Returns one sentence for each oddity in the report.
  Result<std::vector<std::string>> report(const std::string& host, const bus::HostReport& report);
  bool wants_whole(const std::string& host) const;
  void lost(const std::string& host);
  void set_domains(const std::set<std::string>& domains);

  void set_labels(placer::PolicyStore::Labels labels);

  /// Observations that no report has told before.
  std::vector<placer::UsageSample> take_samples();
  std::vector<placer::MemorySample> take_memory_samples();
  void restore(const std::vector<placer::UsageSample>& samples);
  Result<void> tell(const VmId& vm, const placer::AppFigure& figure);

  placer::Fleet fleet() const;

 private:
  mutable Mutex mutex_;
  placer::Roster roster_ GUARDED_BY(mutex_);
};

/// A VM's state as the bus names it.
VmState vm_state(bus::GuestState state);

}  // namespace samepage::control
