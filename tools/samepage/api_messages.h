#pragma once

#include <cstdint>
#include <initializer_list>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "core/result.h"

namespace samepage::cli {

// The placer's answers (docs/api.md) as plain data. Numbers are for display; an absent or null one
// is empty. Every parse function says kCorrupt when the text is not such an answer.

/// The body of a request: a JSON object of texts.
std::string text_object(std::initializer_list<std::pair<std::string, std::string>> members);

/// The body that asks for a migration.
struct MigrationRequest {
  std::vector<std::string> vms;
  std::string target;
  bool dry_run = false;
  bool postcopy = false;
  unsigned parallel = 0;
  unsigned deadline_s = 0;  ///< 0: the placer's own.
};
std::string migration_body(const MigrationRequest& request);

/// The body {"KEY": NUMBER}.
std::string number_object(const std::string& key, double number);

struct Host {
  std::string name;
  std::string state;
  std::string public_key;
  std::optional<double> vms, memory_mib, resident_mib, distinct_mib, ksm_shared_mib,
      predicted_shared_mib, report_age_s;
  std::string hypervisor_version;
};
Result<std::vector<Host>> parse_hosts(std::string_view json);
Result<Host> parse_host(std::string_view json);

struct Vm {
  std::string name, uuid;
  std::string host;
  std::string state;
  std::optional<double> memory_mib, present_mib, zero_mib, duplicate_mib, unique_mib, own_mib,
      template_mib, ksm_mib, fingerprint_age_s;
  std::string sharing_domain;
  std::string tracker;      ///< How its agent finds changed pages; empty until the first scan.
  std::string shares_with;  ///< The VM it shares most with; empty when there is none.
  std::optional<double> shares_mib;
};
Result<std::vector<Vm>> parse_vms(std::string_view json);

/// To whom a VM's memory belonged at one moment.
struct MemoryPoint {
  std::string at, host;
  std::optional<double> own_mib, template_mib, ksm_mib;
};
Result<std::vector<MemoryPoint>> parse_vm_history(std::string_view json);

struct Disk {
  std::string name, host, vm, image, socket, phase;
  std::optional<double> number, size_bytes, written_bytes, dirty_bytes, fetched_bytes;
  bool serves = false;
};
struct DiskList {
  std::vector<Disk> disks;
  std::vector<std::pair<std::string, std::string>> failed;  ///< Host and message.
};
Result<DiskList> parse_disks(std::string_view json);
Result<Disk> parse_disk(std::string_view json);

struct DiskCommit {
  std::string image, note;
  std::optional<double> number, changed_pages;
  bool guest_frozen = false;
};
Result<DiskCommit> parse_disk_commit(std::string_view json);

/// The body of a request for a new disk.
struct NewDisk {
  std::string name, host, image, vm;
  std::uint64_t number = 0;      ///< 0: the newest version.
  std::uint64_t size_bytes = 0;  ///< 0: the image's.
};
std::string disk_object(const NewDisk& disk);

struct HostSharing {
  std::string name;
  std::optional<double> vms, predicted_mib, low_mib, high_mib, zero_mib, within_mib, between_mib,
      achieved_mib, fingerprint_age_s, ksm_full_scans;
  bool ksm_runs = false;
};
struct PairSharing {
  std::string a, b;
  std::optional<double> mib, low_mib, high_mib, age_s;
};
struct Sharing {
  std::vector<HostSharing> hosts;
  std::vector<PairSharing> pairs;
};
Result<Sharing> parse_sharing(std::string_view json);

/// A moment of a host on which KSM ran.
struct SharingPoint {
  std::string host, at;
  std::optional<double> vms, predicted_mib, low_mib, high_mib, achieved_mib, ksm_full_scans;
};
Result<std::vector<SharingPoint>> parse_sharing_history(std::string_view json);

struct WhatIf {
  struct Host {
    std::string name;
    std::optional<double> before_mib, after_mib, low_mib, high_mib, age_s;
  };
  std::vector<Host> hosts;
  std::optional<double> gain_mib;
};
Result<WhatIf> parse_what_if(std::string_view json);

struct Move {
  std::string vm, uuid, source, target, reason;
  std::string state;
  std::string error;  ///< Empty when there is none.
  std::optional<double> gain_mib, cost_mib, stream_bytes, wire_bytes, page_refs, downtime_ms,
      total_ms, template_pages, disk_bytes;
  std::map<std::string, double> terms;  ///< What spoke for the target, by name.
};
struct Stay {
  std::string vm, host, reason;
};
struct Plan {
  std::string id, state, kind, goal, created_at, ended_at, summary;
  std::map<std::string, double> weights;  ///< By the names of terms.
  std::vector<std::string> freed_hosts, notes;
  std::optional<double> hosts_before, hosts_after, hosts_bound, hosts_packed;
  std::optional<double> shared_before_mib, shared_after_mib, gain_mib;
  std::optional<double> achieved_before_mib, achieved_after_mib;  ///< Of a plan that was applied.
  std::vector<Move> moves;
  std::vector<Stay> stays;
};
/// A plan and the JSON text that says so.
struct StoredPlan {
  Plan plan;
  std::string json;
};
Result<StoredPlan> parse_plan(std::string_view json);
Result<std::vector<StoredPlan>> parse_plans(std::string_view json);

struct Rule {
  std::string name, kind;
  std::vector<std::string> vms, hosts;
};
Result<std::vector<Rule>> parse_rules(std::string_view json);

/// The members of an object of texts and numbers, as text.
Result<std::vector<std::pair<std::string, std::string>>> parse_settings(std::string_view json);

struct Progress {
  std::string phase;
  std::optional<double> stream_bytes, wire_bytes, page_refs, bytes_remaining, disk_bytes;
};
struct Event {
  std::uint64_t id = 0;
  std::string at, kind, text, vm;
  std::optional<Progress> progress;
};
Result<Event> parse_event(std::string_view json);

struct ScanOutcome {
  struct Failure {
    std::string host, message;
  };
  std::optional<double> hosts;
  std::vector<Failure> failed;
};
Result<ScanOutcome> parse_scan(std::string_view json);

struct StoreNodeStatus {
  std::string name, state, rack;
  bool is_member = false;
  std::optional<double> share, capacity_bytes, extents, extent_bytes, evicted, leases, refused,
      warm_versions, report_age_s;
};
struct StoreStatus {
  std::vector<StoreNodeStatus> nodes;
};
Result<StoreStatus> parse_store(std::string_view json);

}  // namespace samepage::cli
