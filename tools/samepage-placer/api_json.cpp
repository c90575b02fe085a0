#include "tools/samepage-placer/api_json.h"

#include <algorithm>
#include <chrono>
#include <optional>
#include <string_view>

#include <fmt/chrono.h>
#include <nlohmann/json.hpp>

#include "core/page_count.h"
#include "fingerprinter/fingerprint.h"
#include "placer/sharing.h"
#include "placer/usage.h"

namespace samepage::control {
namespace {

using nlohmann::json;

constexpr std::size_t kPairsMax = 1'000;

double mib(double pages) {
  return pages / kPagesPerMib;
}
double mib(std::uint64_t pages) {
  return mib(static_cast<double>(pages));
}
double mib(std::int64_t pages) {
  return mib(static_cast<double>(pages));
}

double seconds(std::chrono::milliseconds time) {
  return std::chrono::duration<double>(time).count();
}

double ms(std::uint64_t us) {
  return static_cast<double>(us) / 1'000;
}

std::string rfc3339(std::chrono::system_clock::time_point at) {
  return fmt::format("{:%Y-%m-%dT%H:%M:%SZ}",
                     fmt::gmtime(std::chrono::system_clock::to_time_t(at)));
}

json null_or(bool known, const json& value) {
  return known ? value : json(nullptr);
}

json text_or_null(const std::string& text) {
  return null_or(!text.empty(), text);
}

json figures_json(const std::optional<placer::MoveFigures>& figures) {
  if (!figures) {
    json none;
    for (const char* key :
         {"stream_bytes", "wire_bytes", "page_refs", "page_literals", "zero_pages", "pages_resent",
          "downtime_ms", "total_ms", "template_pages", "disk_bytes"}) {
      none[key] = nullptr;
    }
    return none;
  }
  return {{"stream_bytes", figures->stream_bytes},     {"wire_bytes", figures->wire_bytes},
          {"page_refs", figures->page_refs},           {"page_literals", figures->page_literals},
          {"zero_pages", figures->zero_pages},         {"pages_resent", figures->pages_resent},
          {"downtime_ms", ms(figures->downtime_us)},   {"total_ms", ms(figures->total_us)},
          {"template_pages", figures->template_pages}, {"disk_bytes", figures->disk_bytes}};
}

json terms_json(double sharing, double hosts, double movement, double balance) {
  return {{"sharing", sharing}, {"hosts", hosts}, {"movement", movement}, {"balance", balance}};
}

json move_json(std::size_t index, const placer::PlannedMove& planned) {
  const placer::Terms& terms = planned.terms;
  const auto deadline_s = planned.mode.time_max.count();
  return {{"index", index},
          {"vm", planned.name},
          {"uuid", planned.vm.uuid},
          {"source", planned.source},
          {"target", planned.target},
          {"reason", planned.reason},
          {"cause", planned.cause},
          {"gain_mib", mib(planned.gain_pages)},
          {"cost_mib", mib(planned.cost_pages)},
          {"terms", terms_json(terms.sharing, terms.hosts, terms.movement, terms.balance)},
          {"parallel", planned.mode.streams},
          {"postcopy", planned.mode.postcopy},
          {"deadline_s", null_or(deadline_s > 0, deadline_s)}};
}

json move_json(std::size_t index, const placer::MoveRecord& record) {
  json move = figures_json(record.figures);
  move.update(move_json(index, record.move));
  move["state"] = to_string(record.state);
  move["error"] = text_or_null(record.error);
  return move;
}

json stays_json(const std::vector<placer::Stay>& stays) {
  json list = json::array();
  for (const placer::Stay& stay : stays) {
    list.push_back({{"vm", stay.name},
                    {"host", stay.host},
                    {"reason", stay.reason},
                    {"cause", stay.cause},
                    {"best_host", text_or_null(stay.best_host)},
                    {"gain_mib", mib(stay.gain_pages)}});
  }
  return list;
}

/// What a plan and its record have in common.
template <class Plan>
json common_json(const Plan& plan) {
  const double before = mib(plan.shared_before_pages);
  const double after = mib(plan.shared_after_pages);
  const placer::Weights& weights = plan.weights;
  return {
      {"kind", to_string(plan.kind)},
      {"goal", to_string(plan.goal)},
      {"weights", terms_json(weights.sharing, weights.hosts, weights.movement, weights.balance)},
      {"summary", plan.summary},
      {"predicted_shared_before_mib", before},
      {"predicted_shared_after_mib", after},
      {"gain_mib", after - before},
      {"hosts_before", plan.hosts_before},
      {"hosts_after", plan.hosts_after},
      {"hosts_bound", null_or(plan.hosts_bound > 0, plan.hosts_bound)},
      {"hosts_packed", null_or(plan.hosts_packed > 0, plan.hosts_packed)},
      {"freed_hosts", plan.freed_hosts},
      {"notes", plan.notes},
      {"stays", stays_json(plan.stays)}};
}

json series_json(const placer::UsageSeries& series) {
  return {{"now", series.latest()},
          {"mean", series.mean()},
          {"p95", series.quantile(0.95)},
          {"peak", series.peak()},
          {"forecast", series.forecast()}};
}

json usage_json(const placer::VmUsage& usage) {
  return {{"cpu_cores", series_json(usage.series.at(0))},
          {"network_bytes_s", series_json(usage.series.at(1))},
          {"disk_bytes_s", series_json(usage.series.at(2))}};
}

json usage_json(const placer::HostUsage& usage) {
  return {{"observations", usage.series.back().size()},
          {"cpu", series_json(usage.series.at(0))},
          {"network", series_json(usage.series.at(1))},
          {"memory", series_json(usage.series.at(3))},
          {"cpu_stalled", usage.pressure.cpu_stalled},
          {"memory_stalled", usage.pressure.memory_stalled},
          {"io_stalled", usage.pressure.io_stalled}};
}

std::string hotspot_of(const placer::Host& host) {
  if (host.usage == nullptr) return {};
  const auto hotspot = placer::find_hotspot(*host.usage, host.name, {});
  return hotspot ? hotspot->why : std::string();
}

/// Null when a VM has no fingerprint, or there is no VM.
json oldest_fingerprint_s(const std::vector<const placer::Vm*>& vms) {
  std::optional<double> oldest;
  for (const placer::Vm* vm : vms) {
    if (vm->fingerprint == nullptr) return nullptr;
    oldest = std::max(oldest.value_or(0), seconds(vm->fingerprint_age));
  }
  return oldest ? json(*oldest) : json(nullptr);
}

json host_sharing_json(const placer::Host& host, const placer::Fleet& fleet) {
  const auto vms = fleet.vms_on(host.name);
  const placer::HostSharing shared = placer::predict_sharing(vms);
  const placer::Estimate total = shared.total();
  return {{"name", host.name},
          {"vms", vms.size()},
          {"predicted_shared_mib", mib(total.pages)},
          {"low_mib", mib(total.low)},
          {"high_mib", mib(total.high)},
          {"zero_mib", mib(shared.zero)},
          {"within_mib", mib(shared.within)},
          {"between_mib", mib(shared.between.pages)},
          {"oldest_fingerprint_age_s", oldest_fingerprint_s(vms)},
          {"report_age_s",
           null_or(host.report_age.has_value(), host.report_age ? seconds(*host.report_age) : 0.0)},
          {"ksm_runs", null_or(host.memory.has_value(), host.memory && host.memory->ksm_runs)},
          {"ksm_full_scans",
           null_or(host.memory.has_value(), host.memory ? host.memory->ksm_full_scans : 0)},
          {"achieved_shared_mib",
           null_or(host.memory.has_value(),
                   host.memory ? mib(host.memory->achieved_shared_pages()) : 0.0)}};
}

}  // namespace

json to_json(const placer::Host& host, const placer::Fleet& fleet, const std::string& public_key) {
  const bool seen = host.state != placer::HostState::kNeverSeen;
  const bool counted = host.memory.has_value();
  const placer::HostMemory memory = host.memory.value_or(placer::HostMemory{});
  const auto vms = fleet.vms_on(host.name);
  return {
      {"name", host.name},
      {"state", to_string(host.state)},
      {"public_key", public_key},
      {"address", text_or_null(host.address)},
      {"vms", vms.size()},
      {"cpus", null_or(seen, host.cpus)},
      {"memory_mib", null_or(seen, mib(host.capacity_pages))},
      {"resident_mib", null_or(counted, mib(memory.resident_pages))},
      {"distinct_mib", null_or(counted, mib(memory.distinct_frames))},
      {"ksm_shared_mib", null_or(counted, mib(memory.achieved_shared_pages()))},
      {"predicted_shared_mib", null_or(counted, mib(placer::predict_sharing(vms).total().pages))},
      {"report_age_s",
       null_or(host.report_age.has_value(), host.report_age ? seconds(*host.report_age) : 0.0)},
      {"hardware", text_or_null(host.hardware)},
      {"labels", host.labels},
      {"usage", host.usage == nullptr ? json(nullptr) : usage_json(*host.usage)},
      {"hotspot", text_or_null(hotspot_of(host))},
      {"agent_version", text_or_null(host.agent_version)},
      {"hypervisor_version", text_or_null(host.hypervisor_version)}};
}

json to_json(const placer::Vm& vm, const placer::Fleet& fleet) {
  json object = {{"name", vm.name},
                 {"uuid", vm.id.uuid},
                 {"host", vm.host},
                 {"state", placer::to_string(vm.state)},
                 {"memory_mib", mib(vm.memory_pages)},
                 {"sharing_domain", vm.sharing_domain},
                 {"template_id", text_or_null(vm.template_id)},
                 {"usage", vm.usage == nullptr ? json(nullptr) : usage_json(*vm.usage)},
                 {"shares_most_with", nullptr}};
  const bool scanned = vm.fingerprint != nullptr;
  const auto counts = scanned ? vm.fingerprint->counts() : fingerprinter::PageCounts{};
  object["present_mib"] = null_or(scanned, mib(counts.present()));
  object["zero_mib"] = null_or(scanned, mib(counts.zero));
  object["duplicate_mib"] = null_or(scanned, mib(counts.duplicate));
  object["unique_mib"] = null_or(scanned, mib(counts.unique));
  object["unsettled_mib"] = null_or(scanned, mib(counts.unsettled));
  const auto memory = vm.memory.value_or(fingerprinter::MemoryShares{});
  object["own_mib"] = null_or(vm.memory.has_value(), mib(memory.own));
  object["template_mib"] = null_or(vm.memory.has_value(), mib(memory.of_template));
  object["ksm_mib"] = null_or(vm.memory.has_value(), mib(memory.ksm));
  object["tracker"] = text_or_null(vm.tracker);
  object["mergeable"] = null_or(scanned, vm.is_mergeable);
  object["fingerprint_age_s"] = null_or(scanned, seconds(vm.fingerprint_age));
  if (const auto alike = placer::most_alike_with(vm, fleet)) {
    const placer::Vm& other = alike->a->id == vm.id ? *alike->b : *alike->a;
    object["shares_most_with"] = {{"vm", other.name}, {"mib", mib(alike->common.pages)}};
  }
  return object;
}

json sharing_json(const placer::Fleet& fleet) {
  json hosts = json::array();
  for (const placer::Host& host : fleet.hosts) hosts.push_back(host_sharing_json(host, fleet));
  json pairs = json::array();
  for (const placer::PairSharing& pair : placer::most_alike(fleet, kPairsMax)) {
    pairs.push_back({{"a", pair.a->name},
                     {"b", pair.b->name},
                     {"mib", mib(pair.common.pages)},
                     {"age_s", seconds(std::max(pair.a->fingerprint_age, pair.b->fingerprint_age))},
                     {"low_mib", mib(pair.common.low)},
                     {"high_mib", mib(pair.common.high)}});
  }
  return {{"hosts", std::move(hosts)}, {"pairs", std::move(pairs)}};
}

json to_json(const placer::Plan& plan) {
  json object = common_json(plan);
  json moves = json::array();
  for (std::size_t i = 0; i < plan.moves.size(); ++i) {
    json move = figures_json(std::nullopt);
    move.update(move_json(i, plan.moves[i]));
    move["state"] = "planned";
    move["error"] = nullptr;
    moves.push_back(std::move(move));
  }
  object["id"] = nullptr;
  object["state"] = "proposed";
  object["created_at"] = nullptr;
  object["ended_at"] = nullptr;
  object["achieved_shared"] = nullptr;
  object["moves"] = std::move(moves);
  return object;
}

json to_json(const placer::SharingPoint& point) {
  return {{"host", point.host},
          {"at", rfc3339(point.at)},
          {"vms", point.vms},
          {"predicted_shared_mib", mib(point.predicted_pages)},
          {"low_mib", mib(point.low_pages)},
          {"high_mib", mib(point.high_pages)},
          {"achieved_shared_mib", mib(point.achieved_pages)},
          {"ksm_full_scans", point.ksm_full_scans}};
}

json to_json(const placer::MemorySample& sample) {
  return {{"at", rfc3339(sample.at)},
          {"host", sample.host},
          {"own_mib", mib(sample.shares.own)},
          {"template_mib", mib(sample.shares.of_template)},
          {"ksm_mib", mib(sample.shares.ksm)}};
}

json to_json(const placer::PlanRecord& plan) {
  json object = common_json(plan);
  json moves = json::array();
  for (std::size_t i = 0; i < plan.moves.size(); ++i) {
    moves.push_back(move_json(i, plan.moves[i]));
  }
  object["achieved_shared"] = nullptr;
  if (plan.achieved) {
    object["achieved_shared"] = {{"before_mib", mib(plan.achieved->before_pages)},
                                 {"after_mib", mib(plan.achieved->after_pages)}};
  }
  object["id"] = std::to_string(plan.id.value);
  object["state"] = to_string(plan.state);
  object["created_at"] = rfc3339(plan.created_at);
  object["ended_at"] = plan.ended_at ? json(rfc3339(*plan.ended_at)) : json(nullptr);
  object["moves"] = std::move(moves);
  return object;
}

json to_json(const placer::Event& event) {
  json object = {
      {"id", event.id}, {"at", rfc3339(event.at)}, {"kind", event.kind}, {"text", event.text}};
  if (event.plan) object["plan"] = std::to_string(event.plan->value);
  if (!event.vm.empty()) object["vm"] = event.vm;
  if (!event.host.empty()) object["host"] = event.host;
  if (event.progress) {
    object["progress"] = {{"phase", event.progress->phase},
                          {"stream_bytes", event.progress->stream_bytes},
                          {"wire_bytes", event.progress->wire_bytes},
                          {"page_refs", event.progress->page_refs},
                          {"bytes_remaining", event.progress->bytes_remaining},
                          {"disk_bytes", event.progress->disk_bytes}};
  }
  return object;
}

}  // namespace samepage::control
