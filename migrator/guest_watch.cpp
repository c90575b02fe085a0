#include "migrator/guest_watch.h"

namespace samepage::migrator {

Result<VmInfo> find_vm(Hypervisor& hypervisor, const VmId& vm) {
  for (VmInfo& info : TRY(hypervisor.vms())) {
    if (info.id == vm) return std::move(info);
  }
  return fail(Errc::kNotFound, "no VM with UUID " + vm.uuid + " is active here");
}

void GuestWatch::begin(VmState state) {
  const MutexLock lock(mutex_);
  paused_by_owner_ = state == VmState::kPaused;
}

void GuestWatch::saw(VmEventKind kind, Time at) {
  const MutexLock lock(mutex_);
  switch (kind) {
    case VmEventKind::kPausedForMigration:
      if (!stopped_at_) stopped_at_ = at;
      break;
    case VmEventKind::kPaused:
      paused_by_owner_ = true;
      break;
    case VmEventKind::kResumed:
      paused_by_owner_ = false;
      stopped_at_.reset();
      break;
    case VmEventKind::kPostcopy:
    case VmEventKind::kStarted:
    case VmEventKind::kStopped:
      break;
  }
}

bool GuestWatch::paused_by_owner() const {
  const MutexLock lock(mutex_);
  return paused_by_owner_;
}

std::optional<GuestWatch::Time> GuestWatch::stopped_at() const {
  const MutexLock lock(mutex_);
  return stopped_at_;
}

}  // namespace samepage::migrator
