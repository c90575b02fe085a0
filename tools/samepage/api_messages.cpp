#include "tools/samepage/api_messages.h"

#include <nlohmann/json.hpp>

#include "tools/samepage/json_reading.h"

namespace samepage::cli {
namespace {

using nlohmann::json;

std::map<std::string, double> numbers(const json& object, const char* key) {
  const auto found = object.find(key);
  if (found == object.end() || found->is_null()) return {};
  return found->get<std::map<std::string, double>>();
}

std::vector<std::string> texts(const json& object, const char* key) {
  const auto found = object.find(key);
  if (found == object.end() || found->is_null()) return {};
  return found->get<std::vector<std::string>>();
}

template <class Item, class Read>
std::vector<Item> list(const json& object, const char* key, Read read) {
  std::vector<Item> items;
  for (const json& item : object.at(key)) items.push_back(read(item));
  return items;
}

Host read_host(const json& host) {
  return {.name = host.at("name").get<std::string>(),
          .state = text(host, "state"),
          .public_key = text(host, "public_key"),
          .vms = number(host, "vms"),
          .memory_mib = number(host, "memory_mib"),
          .resident_mib = number(host, "resident_mib"),
          .distinct_mib = number(host, "distinct_mib"),
          .ksm_shared_mib = number(host, "ksm_shared_mib"),
          .predicted_shared_mib = number(host, "predicted_shared_mib"),
          .report_age_s = number(host, "report_age_s"),
          .hypervisor_version = text(host, "hypervisor_version")};
}

Vm read_vm(const json& vm) {
  Vm result{.name = vm.at("name").get<std::string>(),
            .uuid = text(vm, "uuid"),
            .host = text(vm, "host"),
            .state = text(vm, "state"),
            .memory_mib = number(vm, "memory_mib"),
            .present_mib = number(vm, "present_mib"),
            .zero_mib = number(vm, "zero_mib"),
            .duplicate_mib = number(vm, "duplicate_mib"),
            .unique_mib = number(vm, "unique_mib"),
            .own_mib = number(vm, "own_mib"),
            .template_mib = number(vm, "template_mib"),
            .ksm_mib = number(vm, "ksm_mib"),
            .fingerprint_age_s = number(vm, "fingerprint_age_s"),
            .sharing_domain = text(vm, "sharing_domain"),
            .tracker = text(vm, "tracker"),
            .shares_with = {},
            .shares_mib = {}};
  const auto most = vm.find("shares_most_with");
  if (most != vm.end() && most->is_object()) {
    result.shares_with = text(*most, "vm");
    result.shares_mib = number(*most, "mib");
  }
  return result;
}

MemoryPoint read_memory_point(const json& point) {
  return {.at = point.at("at").get<std::string>(),
          .host = text(point, "host"),
          .own_mib = number(point, "own_mib"),
          .template_mib = number(point, "template_mib"),
          .ksm_mib = number(point, "ksm_mib")};
}

bool flag(const json& object, const char* key) {
  const auto found = object.find(key);
  return found != object.end() && found->is_boolean() && found->get<bool>();
}

Disk read_disk(const json& disk) {
  return {.name = disk.at("name").get<std::string>(),
          .host = text(disk, "host"),
          .vm = text(disk, "vm"),
          .image = text(disk, "image"),
          .socket = text(disk, "socket"),
          .phase = text(disk, "phase"),
          .number = number(disk, "number"),
          .size_bytes = number(disk, "size_bytes"),
          .written_bytes = number(disk, "written_bytes"),
          .dirty_bytes = number(disk, "dirty_bytes"),
          .fetched_bytes = number(disk, "fetched_bytes"),
          .serves = flag(disk, "serves")};
}

HostSharing read_host_sharing(const json& host) {
  return {.name = host.at("name").get<std::string>(),
          .vms = number(host, "vms"),
          .predicted_mib = number(host, "predicted_shared_mib"),
          .low_mib = number(host, "low_mib"),
          .high_mib = number(host, "high_mib"),
          .zero_mib = number(host, "zero_mib"),
          .within_mib = number(host, "within_mib"),
          .between_mib = number(host, "between_mib"),
          .achieved_mib = number(host, "achieved_shared_mib"),
          .fingerprint_age_s = number(host, "oldest_fingerprint_age_s"),
          .ksm_full_scans = number(host, "ksm_full_scans"),
          .ksm_runs = host.contains("ksm_runs") && host.at("ksm_runs") == true};
}

SharingPoint read_point(const json& point) {
  return {.host = point.at("host").get<std::string>(),
          .at = point.at("at").get<std::string>(),
          .vms = number(point, "vms"),
          .predicted_mib = number(point, "predicted_shared_mib"),
          .low_mib = number(point, "low_mib"),
          .high_mib = number(point, "high_mib"),
          .achieved_mib = number(point, "achieved_shared_mib"),
          .ksm_full_scans = number(point, "ksm_full_scans")};
}

WhatIf::Host read_what_if_host(const json& host) {
  return {.name = host.at("name").get<std::string>(),
          .before_mib = number(host, "before_mib"),
          .after_mib = number(host, "after_mib"),
          .low_mib = number(host, "low_mib"),
          .high_mib = number(host, "high_mib"),
          .age_s = number(host, "oldest_fingerprint_age_s")};
}

PairSharing read_pair(const json& pair) {
  return {.a = pair.at("a").get<std::string>(),
          .b = pair.at("b").get<std::string>(),
          .mib = number(pair, "mib"),
          .low_mib = number(pair, "low_mib"),
          .high_mib = number(pair, "high_mib"),
          .age_s = number(pair, "age_s")};
}

Move read_move(const json& move) {
  return {.vm = move.at("vm").get<std::string>(),
          .uuid = text(move, "uuid"),
          .source = text(move, "source"),
          .target = text(move, "target"),
          .reason = text(move, "reason"),
          .state = move.at("state").get<std::string>(),
          .error = text(move, "error"),
          .gain_mib = number(move, "gain_mib"),
          .cost_mib = number(move, "cost_mib"),
          .stream_bytes = number(move, "stream_bytes"),
          .wire_bytes = number(move, "wire_bytes"),
          .page_refs = number(move, "page_refs"),
          .downtime_ms = number(move, "downtime_ms"),
          .total_ms = number(move, "total_ms"),
          .template_pages = number(move, "template_pages"),
          .disk_bytes = number(move, "disk_bytes"),
          .terms = numbers(move, "terms")};
}

Stay read_stay(const json& stay) {
  return {.vm = stay.at("vm").get<std::string>(),
          .host = text(stay, "host"),
          .reason = text(stay, "reason")};
}

Plan read_plan(const json& plan) {
  Plan result{.id = text(plan, "id"),
              .state = plan.at("state").get<std::string>(),
              .kind = text(plan, "kind"),
              .goal = text(plan, "goal"),
              .created_at = text(plan, "created_at"),
              .ended_at = text(plan, "ended_at"),
              .summary = text(plan, "summary"),
              .weights = numbers(plan, "weights"),
              .freed_hosts = texts(plan, "freed_hosts"),
              .notes = texts(plan, "notes"),
              .hosts_before = number(plan, "hosts_before"),
              .hosts_after = number(plan, "hosts_after"),
              .hosts_bound = number(plan, "hosts_bound"),
              .hosts_packed = number(plan, "hosts_packed"),
              .shared_before_mib = number(plan, "predicted_shared_before_mib"),
              .shared_after_mib = number(plan, "predicted_shared_after_mib"),
              .gain_mib = number(plan, "gain_mib"),
              .achieved_before_mib = {},
              .achieved_after_mib = {},
              .moves = list<Move>(plan, "moves", read_move),
              .stays = list<Stay>(plan, "stays", read_stay)};
  const auto achieved = plan.find("achieved_shared");
  if (achieved != plan.end() && achieved->is_object()) {
    result.achieved_before_mib = number(*achieved, "before_mib");
    result.achieved_after_mib = number(*achieved, "after_mib");
  }
  return result;
}

Event read_event(const json& event) {
  Event result{.id = event.at("id").get<std::uint64_t>(),
               .at = text(event, "at"),
               .kind = text(event, "kind"),
               .text = text(event, "text"),
               .vm = text(event, "vm"),
               .progress = {}};
  const auto progress = event.find("progress");
  if (progress != event.end() && progress->is_object()) {
    result.progress = Progress{.phase = text(*progress, "phase"),
                               .stream_bytes = number(*progress, "stream_bytes"),
                               .wire_bytes = number(*progress, "wire_bytes"),
                               .page_refs = number(*progress, "page_refs"),
                               .bytes_remaining = number(*progress, "bytes_remaining"),
                               .disk_bytes = number(*progress, "disk_bytes")};
  }
  return result;
}

}  // namespace

std::string text_object(std::initializer_list<std::pair<std::string, std::string>> members) {
  json object = json::object();
  for (const auto& [key, value] : members) object[key] = value;
  return object.dump(-1, ' ', false, json::error_handler_t::replace);
}

std::string migration_body(const MigrationRequest& request) {
  json body = {{"vms", request.vms}, {"target", request.target}};
  if (request.dry_run) body["dry_run"] = true;
  if (request.postcopy) body["postcopy"] = true;
  if (request.parallel > 0) body["parallel"] = request.parallel;
  if (request.deadline_s > 0) body["deadline_s"] = request.deadline_s;
  return body.dump();
}

std::string number_object(const std::string& key, double number) {
  return json({{key, number}}).dump();
}

Result<std::vector<Host>> parse_hosts(std::string_view json_text) {
  return parse(json_text, [](const json& body) { return list<Host>(body, "hosts", read_host); });
}

Result<Host> parse_host(std::string_view json_text) {
  return parse(json_text, read_host);
}

Result<DiskList> parse_disks(std::string_view text_of_list) {
  return parse(text_of_list, [](const json& object) {
    DiskList found;
    found.disks = list<Disk>(object, "disks", read_disk);
    found.failed = list<std::pair<std::string, std::string>>(object, "failed", [](const json& one) {
      return std::pair(text(one, "host"), text(one, "message"));
    });
    return found;
  });
}

Result<Disk> parse_disk(std::string_view text_of_disk) {
  return parse(text_of_disk, [](const json& object) { return read_disk(object); });
}

Result<DiskCommit> parse_disk_commit(std::string_view text_of_commit) {
  return parse(text_of_commit, [](const json& object) {
    return DiskCommit{.image = text(object, "image"),
                      .note = text(object, "note"),
                      .number = number(object, "number"),
                      .changed_pages = number(object, "changed_pages"),
                      .guest_frozen = flag(object, "guest_frozen")};
  });
}

std::string disk_object(const NewDisk& disk) {
  json object{{"name", disk.name}, {"host", disk.host}, {"image", disk.image}, {"vm", disk.vm}};
  if (disk.number != 0) object["number"] = disk.number;
  if (disk.size_bytes != 0) object["size_bytes"] = disk.size_bytes;
  return object.dump();
}

Result<std::vector<Vm>> parse_vms(std::string_view json_text) {
  return parse(json_text, [](const json& body) { return list<Vm>(body, "vms", read_vm); });
}

Result<std::vector<MemoryPoint>> parse_vm_history(std::string_view json_text) {
  return parse(json_text, [](const json& body) {
    return list<MemoryPoint>(body, "points", read_memory_point);
  });
}

Result<Sharing> parse_sharing(std::string_view json_text) {
  return parse(json_text, [](const json& body) {
    return Sharing{.hosts = list<HostSharing>(body, "hosts", read_host_sharing),
                   .pairs = list<PairSharing>(body, "pairs", read_pair)};
  });
}

Result<std::vector<SharingPoint>> parse_sharing_history(std::string_view json_text) {
  return parse(json_text,
               [](const json& body) { return list<SharingPoint>(body, "points", read_point); });
}

Result<WhatIf> parse_what_if(std::string_view json_text) {
  return parse(json_text, [](const json& body) {
    return WhatIf{.hosts = list<WhatIf::Host>(body, "hosts", read_what_if_host),
                  .gain_mib = number(body, "gain_mib")};
  });
}

Result<StoredPlan> parse_plan(std::string_view json_text) {
  return parse(json_text, [&](const json& plan) {
    return StoredPlan{.plan = read_plan(plan), .json = std::string(json_text)};
  });
}

Result<std::vector<StoredPlan>> parse_plans(std::string_view json_text) {
  return parse(json_text, [](const json& body) {
    return list<StoredPlan>(body, "plans", [](const json& plan) {
      return StoredPlan{.plan = read_plan(plan), .json = plan.dump()};
    });
  });
}

Result<std::vector<Rule>> parse_rules(std::string_view json_text) {
  return parse(json_text, [](const json& body) {
    return list<Rule>(body, "rules", [](const json& rule) {
      return Rule{.name = text(rule, "name"),
                  .kind = text(rule, "kind"),
                  .vms = texts(rule, "vms"),
                  .hosts = texts(rule, "hosts")};
    });
  });
}

Result<std::vector<std::pair<std::string, std::string>>> parse_settings(
    std::string_view json_text) {
  return parse(json_text, [](const json& body) {
    std::vector<std::pair<std::string, std::string>> settings;
    for (const auto& [name, value] : body.items()) {
      settings.emplace_back(name, value.is_string() ? value.get<std::string>() : value.dump());
    }
    return settings;
  });
}

Result<Event> parse_event(std::string_view json_text) {
  return parse(json_text, read_event);
}

Result<ScanOutcome> parse_scan(std::string_view json_text) {
  return parse(json_text, [](const json& body) {
    return ScanOutcome{
        .hosts = number(body, "hosts"),
        .failed = list<ScanOutcome::Failure>(body, "failed", [](const json& failure) {
          return ScanOutcome::Failure{.host = text(failure, "host"),
                                      .message = text(failure, "message")};
        })};
  });
}

Result<StoreStatus> parse_store(std::string_view body) {
  return parse(body, [](const json& status) {
    const auto read = [](const json& node) {
      return StoreNodeStatus{.name = node.at("node").get<std::string>(),
                             .state = text(node, "state"),
                             .rack = text(node, "rack"),
                             .is_member = node.at("member").get<bool>(),
                             .share = number(node, "share"),
                             .capacity_bytes = number(node, "capacity_bytes"),
                             .extents = number(node, "extents"),
                             .extent_bytes = number(node, "extent_bytes"),
                             .evicted = number(node, "evicted"),
                             .leases = number(node, "leases"),
                             .refused = number(node, "refused"),
                             .warm_versions = number(node, "warm_versions"),
                             .report_age_s = number(node, "report_age_s")};
    };
    return StoreStatus{.nodes = list<StoreNodeStatus>(status, "nodes", read)};
  });
}

}  // namespace samepage::cli
