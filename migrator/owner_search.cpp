#include "migrator/owner_search.h"

#include "core/log.h"

namespace samepage::migrator {
namespace {

/// True also when that cannot be known.
bool is_halved(Hypervisor& hypervisor, const VmId& id) {
  const auto vm = find_vm(hypervisor, id);
  return !vm || vm->state == VmState::kOther;
}

/// The answer to Finish may or may not have reached libvirt; its own view of the guest tells.
Owner ask_hypervisor(Hypervisor& hypervisor, const GivenUp& given_up) {
  const auto vm = find_vm(hypervisor, given_up.vm);
  if (!vm) return vm.error().code() == Errc::kNotFound ? Owner::kLetGo : Owner::kUnclear;

  // libvirt resumes only a guest that it keeps. When it was out of reach it may still be deciding.
  const auto& why = given_up.why;
  const bool decided = why && why->code() != Errc::kUnavailable && why->code() != Errc::kTimedOut;
  return decided && vm->state == VmState::kRunning ? Owner::kSource : Owner::kUnclear;
}

/// libvirt resumes the guest after a failed migration, unless it was restarted in the middle.
void keep_running(Hypervisor& hypervisor, const VmId& id, const GuestWatch& guest) {
  if (!guest.stopped_at()) return;
  const auto vm = find_vm(hypervisor, id);
  if (!vm || vm->state != VmState::kPaused || !guest.stopped_at()) return;
  if (auto resumed = hypervisor.resume(id); !resumed) {
    log_error("could not resume the guest after a failed migration vm={} error=\"{}\"", id.uuid,
              resumed.error().message());
  }
}

}  // namespace

Owner find_owner(const GivenUp& given_up, const ControlForwarder& control, const GuestWatch& guest,
                 Hypervisor& hypervisor) {
  if (control.finish() == FinishSeen::kHanded) return Owner::kLetGo;
  // With post-copy the guest itself tells: the news of the switch may have been lost.
  if (given_up.may_be_halved && (given_up.let_finish || is_halved(hypervisor, given_up.vm))) {
    return ask_hypervisor(hypervisor, given_up);
  }
  if (control.finish() == FinishSeen::kNo && !control.lost()) {
    // Without the answer to Finish libvirt never gives the guest up, and now none can come.
    keep_running(hypervisor, given_up.vm, guest);
    return Owner::kSource;
  }
  return ask_hypervisor(hypervisor, given_up);
}

}  // namespace samepage::migrator
