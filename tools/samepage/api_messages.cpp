#include "tools/samepage/api_messages.h"

#include <exception>

#include <nlohmann/json.hpp>

namespace samepage::cli {
namespace {

using nlohmann::json;

/// Runs `read` on the parsed text; whatever it does not find as expected makes the answer corrupt.
template <class Read>
auto parse(std::string_view text, Read read) -> Result<decltype(read(json()))> {
  try {
    return read(json::parse(text));
  } catch (const std::exception& exception) {
    return fail(Errc::kCorrupt,
                std::string("the placer's answer is not understood: ") + exception.what());
  }
}

std::string text(const json& object, const char* key) {
  const auto found = object.find(key);
  if (found == object.end() || found->is_null()) return {};
  return found->get<std::string>();
}

std::optional<double> number(const json& object, const char* key) {
  const auto found = object.find(key);
  if (found == object.end() || found->is_null()) return std::nullopt;
  return found->get<double>();
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
            .fingerprint_age_s = number(vm, "fingerprint_age_s"),
            .sharing_domain = text(vm, "sharing_domain"),
            .shares_with = {},
            .shares_mib = {}};
  const auto most = vm.find("shares_most_with");
  if (most != vm.end() && most->is_object()) {
    result.shares_with = text(*most, "vm");
    result.shares_mib = number(*most, "mib");
  }
  return result;
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
          .achieved_mib = number(host, "achieved_shared_mib")};
}

PairSharing read_pair(const json& pair) {
  return {.a = pair.at("a").get<std::string>(),
          .b = pair.at("b").get<std::string>(),
          .mib = number(pair, "mib"),
          .low_mib = number(pair, "low_mib"),
          .high_mib = number(pair, "high_mib")};
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
          .stream_bytes = number(move, "stream_bytes"),
          .wire_bytes = number(move, "wire_bytes"),
          .page_refs = number(move, "page_refs"),
          .downtime_ms = number(move, "downtime_ms"),
          .total_ms = number(move, "total_ms")};
}

Stay read_stay(const json& stay) {
  return {.vm = stay.at("vm").get<std::string>(),
          .host = text(stay, "host"),
          .reason = text(stay, "reason")};
}

Plan read_plan(const json& plan) {
  Plan result{.id = plan.at("id").get<std::string>(),
              .state = plan.at("state").get<std::string>(),
              .created_at = text(plan, "created_at"),
              .summary = text(plan, "summary"),
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
                               .bytes_remaining = number(*progress, "bytes_remaining")};
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

Result<std::vector<Vm>> parse_vms(std::string_view json_text) {
  return parse(json_text, [](const json& body) { return list<Vm>(body, "vms", read_vm); });
}

Result<Sharing> parse_sharing(std::string_view json_text) {
  return parse(json_text, [](const json& body) {
    return Sharing{.hosts = list<HostSharing>(body, "hosts", read_host_sharing),
                   .pairs = list<PairSharing>(body, "pairs", read_pair)};
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

}  // namespace samepage::cli
