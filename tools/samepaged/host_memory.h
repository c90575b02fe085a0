#pragma once

#include <vector>

#include "core/bus.h"
#include "core/hypervisor.h"

namespace samepage::agent {

/// Counts the physical frames behind the guests and the memory that the host has left. What cannot
/// be counted (no right to see frames, say) is logged and left at zero.
void put_host_memory(const std::vector<VmInfo>& vms, bus::HostMemory& memory);

/// Whether KSM runs, and how often it has been through all memory.
void put_ksm(bus::HostMemory& memory);

}  // namespace samepage::agent
