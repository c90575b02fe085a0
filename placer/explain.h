#pragma once

#include <chrono>
#include <cstddef>
#include <span>
#include <string>

#include "placer/placement.h"

namespace samepage::placer {

// The planner's sentences. Each says in figures why a VM moves or stays.

std::string mib_text(double pages);                   ///< "61 MiB", "4.2 MiB"
std::string age_text(std::chrono::milliseconds age);  ///< "24 min", "3 s"

/// "web3 shares 61 MiB with web1 and web2 on host1, but only 12 MiB with its neighbours on host2".
/// Call before the VM is moved.
std::string why_alone(Placement& placement, std::size_t vm, std::size_t target);

/// The same of VMs that move together from one host to another.
std::string why_together(const Placement& placement, std::span<const std::size_t> group,
                         std::size_t target);

/// The same with the reason for changing places.
std::string why_swapped(Placement& placement, std::size_t vm, std::size_t other);

/// Why a VM stays where it is after all moves of the plan.
std::string why_stays(Placement& placement, std::size_t vm, const PlanOptions& options);

}  // namespace samepage::placer
