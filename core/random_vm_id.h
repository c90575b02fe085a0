#pragma once

#include "core/hypervisor.h"
#include "core/result.h"

namespace samepage {

/// A random UUID (RFC 4122, version 4), in libvirt's text form. kIo: the system gave no randomness.
Result<VmId> random_vm_id();

}  // namespace samepage
