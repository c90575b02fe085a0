#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
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

  const Vm& vm(std::size_t number) const { return fleet_.vms.at(number); }
  const Host& host(std::size_t number) const { return fleet_.hosts.at(number); }
  std::size_t vm_count() const { return fleet_.vms.size(); }
  std::size_t host_count() const { return fleet_.hosts.size(); }
  std::size_t host_of(std::size_t vm) const { return host_of_.at(vm); }

  /// Why a VM must not be moved; empty when it may be.
  const std::string& why_fixed(std::size_t vm) const { return why_fixed_.at(vm); }
  bool may_move(std::size_t vm) const { return why_fixed_.at(vm).empty() && !moved_.at(vm); }
  bool may_receive(std::size_t host) const { return this->host(host).state == HostState::kUp; }

  /// Numbers of the VMs that are on a host now, and the VMs themselves but for some.
  const std::vector<std::size_t>& on(std::size_t host) const { return slots_.at(host).residents; }
  std::vector<const Vm*> vms_on(std::size_t host, std::span<const std::size_t> without = {}) const;
  std::vector<const Vm*> vms(std::span<const std::size_t> numbers,
                             std::span<const std::size_t> without = {}) const;

  /// Rises whenever a host's VMs change.
  std::size_t version(std::size_t host) const { return slots_.at(host).version; }

  /// The pages of a host's VMs; of all but one. Kept until the host's VMs change.
  const PageUnion& pages(std::size_t host);
  const PageUnion& pages_without(std::size_t vm);

  /// Pages of a VM that the other VMs on `host` have too. Kept as long.
  Estimate common(std::size_t vm, std::size_t host);

  struct Room {
    std::uint64_t needed = 0;  ///< Pages.
    std::uint64_t free = 0;
    bool fits() const { return needed <= free; }
  };
  using Numbers = std::span<const std::size_t>;

  /// For VMs that arrive on `host` one after the other, once the VMs `gone` have left it: while
  /// nothing that arrived in this plan is merged yet; and when all is, with the headroom kept free.
  Room room_on_arrival(Numbers arriving, std::size_t host, Numbers gone = {});
  Room room_at_the_end(Numbers arriving, std::size_t host, Numbers gone = {});

  /// The tighter of the two.
  Room room(Numbers arriving, std::size_t host);

  void move(std::size_t vm, std::size_t target);

  /// Predicted shared pages of the whole fleet.
  double shared_pages() const;

 private:
  struct Slot {
    std::vector<std::size_t> residents;
    std::vector<std::size_t> stayed;  // Residents since before the plan.
    std::uint64_t arrived_pages = 0;  // Of VMs that the plan brought: all their own pages.
    std::size_t version = 0;
    // Made when asked for.
    std::optional<PageUnion> pages;
    std::map<std::size_t, PageUnion> pages_without;  // By resident.
    std::optional<std::uint64_t> stayed_footprint;
    std::vector<std::optional<Estimate>> common;  // By VM.
  };

  std::string find_fault(const Vm& vm) const;
  static void changed(Slot& slot);

  Fleet fleet_;
  PlanOptions options_;
  std::vector<Slot> slots_;
  std::vector<std::size_t> host_of_;
  std::vector<bool> moved_;
  std::vector<std::string> why_fixed_;
};

}  // namespace samepage::placer
