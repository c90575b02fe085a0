#pragma once

#include <chrono>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "core/hypervisor.h"
#include "core/result.h"
#include "fingerprinter/memory_shares.h"

namespace samepage::fingerprinter {
class Fingerprint;
}  // namespace samepage::fingerprinter

namespace samepage::placer {

struct HostUsage;  // usage.h
struct VmUsage;

enum class HostState : std::uint8_t { kUp, kDown, kNeverSeen };

std::string_view to_string(HostState state);  ///< "up", "down", "never_seen"
std::string_view to_string(VmState state);    ///< "running", "paused", "other"

/// Frames of one host's guests, as its agent counted them. Pages of 4 KiB.
struct HostMemory {
  std::uint64_t resident_pages = 0;   ///< Mapped by guests, the kernel's zero page left out.
  std::uint64_t distinct_frames = 0;  ///< Physical frames behind them.
  std::uint64_t ksm_mapped_pages = 0;
  std::uint64_t ksm_frames = 0;
  std::uint64_t free_bytes = 0;
  bool ksm_runs = false;
  std::uint64_t ksm_full_scans = 0;

  /// Frames that sharing has saved already.
  std::uint64_t achieved_shared_pages() const {
    return resident_pages > distinct_frames ? resident_pages - distinct_frames : 0;
  }
};

struct Host {
  std::string name;
  HostState state = HostState::kNeverSeen;
  std::uint64_t capacity_pages = 0;  ///< Offered to VMs, after the agent's own limit.
  unsigned cpus = 0;
  std::string address;  ///< Where other agents reach this one.
  std::string agent_version;
  std::string hypervisor_version;
  std::string hardware;                       ///< Hosts of one class run a VM at one cost.
  double link_bytes_s = 0;                    ///< Speed of its network; 0: not known.
  unsigned boots_at_once = 1;                 ///< VMs that it boots at the same time.
  std::map<std::string, std::string> labels;  ///< An administrator's.
  std::optional<HostMemory> memory;
  bool memory_is_of_now = true;            ///< The same VMs are there as when it was counted.
  std::shared_ptr<const HostUsage> usage;  ///< What it used lately; null: nothing is known.
  std::optional<std::chrono::milliseconds>
      report_age;  ///< Absent: no report since it was enrolled.
};

struct Vm {
  VmId id;
  std::string name;
  std::string host;  ///< The one host that this VM belongs to.
  VmState state = VmState::kOther;
  std::uint64_t memory_pages = 0;  ///< Guest RAM as configured.
  unsigned vcpus = 0;
  double cpu_seconds = 0;
  std::string sharing_domain;
  std::string template_id = {};  ///< That it was forked from; empty: none.

  /// Null until the first scan. Kept when the VM arrives on a host that has not scanned it yet.
  std::shared_ptr<const fingerprinter::Fingerprint> fingerprint;
  std::chrono::milliseconds fingerprint_age{0};
  std::string tracker{};     ///< How its agent finds changed pages; empty until the first scan.
  bool is_mergeable = true;  ///< KSM looks at its RAM.

  std::shared_ptr<const VmUsage> usage;  ///< What it used lately; null: nothing is known.

  /// As its host counted last; absent until it has.
  std::optional<fingerprinter::MemoryShares> memory{};

  std::string
      copy_on;  ///< Another host that also has it (a migration, or what one left); or empty.
  bool runs_twice = false;  ///< `copy_on` says that it runs there too.
};

/// The hosts and VMs as they were known at one moment. A plain value: copies are cheap, and the
/// planner, the API and the tests all work on copies.
///
/// Invariant (when made by Roster): hosts are sorted by name; VMs by name, then UUID; every
/// VM's host is among the hosts; no UUID appears twice.
struct Fleet {
  std::vector<Host> hosts;
  std::vector<Vm> vms;

  const Host* find_host(std::string_view name) const;
  const Vm* find_vm(const VmId& id) const;

  /// By name or UUID. kNotFound: there is none; the message says how to list them. kInvalid: the
  /// name means several VMs; the message lists their UUIDs.
  Result<const Vm*> named(std::string_view name_or_uuid) const;

  /// The VMs that belong to a host, in the fleet's order.
  std::vector<const Vm*> vms_on(std::string_view host) const;
};

}  // namespace samepage::placer
