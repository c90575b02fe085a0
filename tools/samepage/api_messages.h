#pragma once

#include <cstdint>
#include <initializer_list>
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
  std::optional<double> memory_mib, present_mib, zero_mib, duplicate_mib, unique_mib,
      fingerprint_age_s;
  std::string sharing_domain;
  std::string shares_with;  ///< The VM it shares most with; empty when there is none.
  std::optional<double> shares_mib;
};
Result<std::vector<Vm>> parse_vms(std::string_view json);

struct HostSharing {
  std::string name;
  std::optional<double> vms, predicted_mib, low_mib, high_mib, zero_mib, within_mib, between_mib,
      achieved_mib;
};
struct PairSharing {
  std::string a, b;
  std::optional<double> mib, low_mib, high_mib;
};
struct Sharing {
  std::vector<HostSharing> hosts;
  std::vector<PairSharing> pairs;
};
Result<Sharing> parse_sharing(std::string_view json);

struct Move {
  std::string vm, uuid, source, target, reason;
  std::string state;
  std::string error;  ///< Empty when there is none.
  std::optional<double> gain_mib, stream_bytes, wire_bytes, page_refs, downtime_ms, total_ms;
};
struct Stay {
  std::string vm, host, reason;
};
struct Plan {
  std::string id, state, created_at, summary;
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

struct Progress {
  std::string phase;
  std::optional<double> stream_bytes, wire_bytes, page_refs, bytes_remaining;
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

}  // namespace samepage::cli
