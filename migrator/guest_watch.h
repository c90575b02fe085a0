#pragma once

#include <chrono>
#include <optional>

#include "core/hypervisor.h"
#include "core/mutex.h"

namespace samepage::migrator {

/// One VM of this host. kNotFound: it is not here. Else the hypervisor's errors.
Result<VmInfo> find_vm(Hypervisor& hypervisor, const VmId& vm);

/// What a guest did on the source since its migration began, from the hypervisor's events.
/// Threads: every method may be called from any thread.
class GuestWatch final {
 public:
  using Time = std::chrono::steady_clock::time_point;

  /// The guest's state before libvirt is asked to migrate.
  void begin(VmState state);
  void saw(VmEventKind kind, Time at);

  bool paused_by_owner() const;

  /// When it stopped for the switch-over, unless it went on since.
  std::optional<Time> stopped_at() const;

 private:
  mutable Mutex mutex_;
  bool paused_by_owner_ GUARDED_BY(mutex_) = false;
  std::optional<Time> stopped_at_ GUARDED_BY(mutex_);
};

}  // namespace samepage::migrator
