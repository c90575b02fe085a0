#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "placer/fleet.h"
#include "placer/planner.h"
#include "placer/sharing.h"

namespace samepage::placer {

/// Where every VM is while a plan is made: the planner's working copy of a fleet, in which VMs and
/// hosts are numbered as in Fleet. VMs without a fresh fingerprint share nothing here.
///
/// Threads: none of its own. Lifetime: borrows nothing; copies the fleet.
class Placement {
 public:
  Placement(const Fleet& fleet, const PlanOptions& options);

  /// Numbers of the VMs that are on a host now.
  const std::vector<std::size_t>& on(std::size_t host) const { return hosts_.at(host).residents; }
  std::vector<const Vm*> vms_on(std::size_t host, std::span<const std::size_t> without = {}) const;

  const Vm& vm(std::size_t number) const { return fleet_.vms.at(number); }
  const Host& host(std::size_t number) const { return fleet_.hosts.at(number); }
  std::size_t vm_count() const { return fleet_.vms.size(); }
  std::size_t host_count() const { return fleet_.hosts.size(); }
  std::size_t host_of(std::size_t vm) const { return host_of_.at(vm); }

  /// Why a VM must not be moved; empty when it may be.
  const std::string& why_fixed(std::size_t vm) const { return why_fixed_.at(vm); }
  bool may_move(std::size_t vm) const { return why_fixed_.at(vm).empty() && !moved_.at(vm); }
  bool may_receive(std::size_t host) const;

  /// Pages of a VM that the other VMs on `host` have too. Kept until the host's VMs change.
  const Estimate& common(std::size_t vm, std::size_t host);

  /// Pages that `arriving` brings at most while its move goes on, and those free for it.
  struct Room {
    std::uint64_t needed = 0;
    std::uint64_t free = 0;
    bool fits() const { return needed <= free; }
  };
  /// The tighter of the two rules (see plan()), when the VM arrives on `host` now.
  Room room(std::size_t arriving, std::size_t host) const;

  void move(std::size_t vm, std::size_t target);

  /// Predicted shared pages of the whole fleet.
  double shared_pages() const;

 private:
  struct HostState {
    std::vector<std::size_t> residents;
    std::vector<std::size_t> stayed;     // Residents since before the plan.
    std::uint64_t arrived_pages = 0;     // Of VMs that the plan brought, all their own pages.
  };

  Fleet fleet_;
  PlanOptions options_;
  std::vector<HostState> hosts_;
  std::vector<std::size_t> host_of_;
  std::vector<bool> moved_;
  std::vector<std::string> why_fixed_;
  std::vector<std::vector<std::optional<Estimate>>> common_;  // By host, then VM.
};

}  // namespace samepage::placer
