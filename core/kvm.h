#pragma once

namespace samepage {

/// Whether this process may run VMs with KVM; where it may not, they are emulated.
bool has_kvm();

}  // namespace samepage
