#include "tools/samepaged/frozen_guest.h"

#include <algorithm>

#include "core/log.h"

namespace samepage::agent {

FrozenGuest::FrozenGuest(Hypervisor& hypervisor, const std::string& name)
    : hypervisor_(hypervisor) {
  if (name.empty()) {
    note_ = "no VM is known to use the disk";
    return;
  }
  const auto vms = hypervisor.vms();
  if (!vms) {
    note_ = vms.error().message();
    return;
  }
  const auto found =
      std::find_if(vms->begin(), vms->end(), [&](const VmInfo& vm) { return vm.name == name; });
  if (found == vms->end()) {
    note_ = "the VM is not active";
  } else if (const auto frozen = hypervisor.freeze_filesystems(found->id); frozen) {
    vm_ = found->id;
  } else {
    note_ = frozen.error().message();
  }
}

void FrozenGuest::thaw() {
  if (!vm_) return;
  if (const auto thawed = hypervisor_.thaw_filesystems(*vm_); !thawed) {
    log_error("a guest's file systems stay frozen vm={} why=\"{}\"", vm_->uuid,
              thawed.error().message());
  }
  vm_.reset();
}

}  // namespace samepage::agent
