#include "tools/samepage/scenario_reader.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include <nlohmann/json.hpp>

#include "core/page_count.h"

namespace samepage::cli {
namespace {

using nlohmann::json;
using placer::LoadShape;
using placer::Scenario;
using placer::ScenarioEvent;
using placer::ScenarioPolicy;
using placer::ScenarioVm;

constexpr double kUnlimited = 1e18;
constexpr std::size_t kHostsMax = 20'000;
constexpr std::size_t kVmsMax = 400'000;

tl::unexpected<Error> wrong(const std::string& where, const std::string& what) {
  return fail(Errc::kInvalid, where + " " + what);
}

/// One JSON object whose members are read one by one; finish() refuses those that nobody read.
class Object {
 public:
  Object(const json& value, std::string where) : value_(&value), where_(std::move(where)) {}

  std::string at(const std::string& member) const {
    return where_.empty() ? member : where_ + "." + member;
  }

  const json* find(const std::string& member) {
    seen_.insert(member);
    const auto found = value_->find(member);
    return found == value_->end() ? nullptr : &*found;
  }

  Result<void> number(const std::string& member, double& into, double low = 0,
                      double high = kUnlimited) {
    const json* const found = find(member);
    if (found == nullptr) return {};
    const double value = found->is_number() ? found->get<double>() : std::nan("");
    if (!(value >= low && value <= high)) {
      return wrong(at(member),
                   "must be a number from " + json(low).dump() + " to " + json(high).dump());
    }
    into = value;
    return {};
  }

  template <class Count>
  Result<void> count(const std::string& member, Count& into, double low, double high) {
    auto value = static_cast<double>(into);
    TRY(number(member, value, low, high));
    into = static_cast<Count>(value);
    return {};
  }

  Result<void> text(const std::string& member, std::string& into) {
    const json* const found = find(member);
    if (found == nullptr) return {};
    if (!found->is_string()) return wrong(at(member), "must be a text");
    into = found->get<std::string>();
    return {};
  }

  Result<void> flag(const std::string& member, bool& into) {
    const json* const found = find(member);
    if (found == nullptr) return {};
    if (!found->is_boolean()) return wrong(at(member), "must be true or false");
    into = found->get<bool>();
    return {};
  }

  Result<void> texts(const std::string& member, std::vector<std::string>& into) {
    return each(member, [&](const json& item, const std::string& where) -> Result<void> {
      if (!item.is_string()) return wrong(where, "must be a text");
      into.push_back(item.get<std::string>());
      return {};
    });
  }

  template <class Read>
  Result<void> each(const std::string& member, Read read) {
    const json* const found = find(member);
    if (found == nullptr) return {};
    if (!found->is_array()) return wrong(at(member), "must be a list");
    for (std::size_t i = 0; i < found->size(); ++i) {
      TRY(read((*found)[i], at(member) + "[" + std::to_string(i) + "]"));
    }
    return {};
  }

  Result<void> finish() const {
    for (const auto& [name, value] : value_->items()) {
      if (!seen_.contains(name)) return wrong(at(name), "is not known");
    }
    return {};
  }

  Result<void> check() const {
    if (value_->is_object()) return {};
    return wrong(where_.empty() ? "a scenario" : where_, "must be an object");
  }

 private:
  const json* value_;
  std::string where_;
  std::set<std::string> seen_;
};

std::string numbered(const std::string& name, std::size_t index, std::size_t count) {
  return count == 1 ? name : name + std::to_string(index + 1);
}

Result<void> read_host(const json& value, const std::string& where, Scenario& scenario) {
  Object object(value, where);
  TRY(object.check());
  placer::SceneHost host;
  std::size_t count = 1;
  double memory_mib = 0;
  host.bin.loads = {kUnlimited, kUnlimited, kUnlimited};
  TRY(object.text("name", host.name));
  TRY(object.count("count", count, 1, kHostsMax));
  TRY(object.number("memory_mib", memory_mib, 1, 1e9));
  TRY(object.number("cpus", host.bin.loads[0], 0.01, 1e5));
  TRY(object.number("network_bytes_s", host.bin.loads[1], 1));
  TRY(object.number("disk_bytes_s", host.bin.loads[2], 1));
  TRY(object.text("hardware", host.hardware));
  TRY(object.finish());
  if (host.name.empty()) return wrong(where + ".name", "is missing");
  if (memory_mib <= 0) return wrong(where + ".memory_mib", "is missing");
  host.bin.capacity = memory_mib * kPagesPerMib;
  if (scenario.hosts.size() + count > kHostsMax) return wrong(where, "is more hosts than 20,000");
  const std::string name = host.name;
  for (std::size_t i = 0; i < count; ++i) {
    host.name = numbered(name, i, count);
    scenario.hosts.push_back(host);
  }
  return {};
}

Result<void> read_load(Object& parent, const std::string& member, LoadShape& into) {
  const json* const value = parent.find(member);
  if (value == nullptr) return {};
  if (value->is_number()) return parent.number(member, into.base);
  Object object(*value, parent.at(member));
  TRY(object.check());
  TRY(object.number("base", into.base));
  TRY(object.number("amplitude", into.amplitude));
  TRY(object.number("period_s", into.period_s, 1));
  TRY(object.number("phase_s", into.phase_s));
  TRY(object.number("noise", into.noise, 0, 1));
  TRY(object.each("steps", [&](const json& step, const std::string& where) -> Result<void> {
    const bool sound = step.is_array() && step.size() == 2 && step[0].is_number() &&
                       step[1].is_number() && step[1].get<double>() >= 0;
    if (!sound) return wrong(where, "must be [SECOND, VALUE]");
    into.steps.emplace_back(step[0].get<double>(), step[1].get<double>());
    return {};
  }));
  return object.finish();
}

Result<void> read_mix(const json& value, const std::string& where, ScenarioVm& vm) {
  Object object(value, where);
  TRY(object.check());
  placer::MemoryMix mix;
  double own_mib = 0;
  TRY(object.number("at_s", mix.at_s));
  TRY(object.number("own_mib", own_mib, 0, 1e9));
  mix.own_pages = own_mib * kPagesPerMib;
  if (const json* const pools = object.find("pools")) {
    if (!pools->is_object()) return wrong(where + ".pools", "must be an object");
    Object sizes(*pools, where + ".pools");
    for (const auto& [pool, ignored] : pools->items()) {
      double mib = 0;
      TRY(sizes.number(pool, mib, 0, 1e9));
      mix.pools.push_back({.pool = pool, .pages = mib * kPagesPerMib});
    }
  }
  TRY(object.finish());
  if (!vm.memory.empty() && mix.at_s <= vm.memory.back().at_s) {
    return wrong(where + ".at_s", "must be later than the one before");
  }
  vm.memory.push_back(std::move(mix));
  return {};
}

Result<void> read_vm(const json& value, const std::string& where, Scenario& scenario) {
  Object object(value, where);
  TRY(object.check());
  ScenarioVm vm;
  std::size_t count = 1;
  double every_s = 0;
  TRY(object.text("name", vm.name));
  TRY(object.count("count", count, 1, kVmsMax));
  TRY(object.text("host", vm.host));
  TRY(object.number("arrives_s", vm.arrives_s));
  TRY(object.number("arrives_every_s", every_s));
  TRY(object.number("leaves_s", vm.leaves_s));
  TRY(read_load(object, "cpu", vm.loads[0]));
  TRY(read_load(object, "network_bytes_s", vm.loads[1]));
  TRY(read_load(object, "disk_bytes_s", vm.loads[2]));
  TRY(object.each("memory",
                  [&](const json& mix, const std::string& at) { return read_mix(mix, at, vm); }));
  TRY(object.finish());
  if (vm.name.empty()) return wrong(where + ".name", "is missing");
  if (vm.memory.empty() || vm.memory.front().at_s > 0) {
    return wrong(where + ".memory", "must say what there is from second 0 on");
  }
  if (scenario.vms.size() + count > kVmsMax) return wrong(where, "is more VMs than 400,000");
  const std::string name = vm.name;
  const double first_s = vm.arrives_s;
  for (std::size_t i = 0; i < count; ++i) {
    vm.name = numbered(name, i, count);
    vm.arrives_s = first_s + every_s * static_cast<double>(i);
    scenario.vms.push_back(vm);
  }
  return {};
}

Result<void> read_rule(const json& value, const std::string& where, Scenario& scenario) {
  Object object(value, where);
  TRY(object.check());
  placer::Rule rule;
  std::string kind;
  TRY(object.text("name", rule.name));
  TRY(object.text("kind", kind));
  TRY(object.texts("vms", rule.vms));
  TRY(object.texts("hosts", rule.hosts));
  TRY(object.finish());
  const auto parsed = placer::parse_rule_kind(kind);
  if (!parsed) return wrong(where + ".kind:", parsed.error().message());
  rule.kind = *parsed;
  scenario.rules.push_back(std::move(rule));
  return {};
}

Result<void> read_model(const json& value, const std::string& where, Scenario& scenario) {
  constexpr std::array kModelled{"cpu", "network", "disk"};
  Object object(value, where);
  TRY(object.check());
  placer::ClassModel model;
  std::string of = "cpu";
  TRY(object.text("source", model.source));
  TRY(object.text("target", model.target));
  TRY(object.text("of", of));
  TRY(object.number("constant", model.constant, -kUnlimited));
  if (const json* const factors = object.find("factors")) {
    Object each(*factors, object.at("factors"));
    TRY(each.check());
    for (std::size_t i = 0; i < kModelled.size(); ++i) {
      TRY(each.number(kModelled.at(i), model.factors.at(i), -kUnlimited));
    }
    TRY(each.finish());
  }
  TRY(object.finish());
  const auto* const found = std::find(kModelled.begin(), kModelled.end(), of);
  if (found == kModelled.end()) return wrong(where + ".of", "must be cpu, network or disk");
  if (model.source.empty() || model.target.empty() || model.source == model.target) {
    return wrong(where, "must name two classes of hardware, source and target");
  }
  model.of = static_cast<placer::Resource>(found - kModelled.begin());
  scenario.class_models.push_back(std::move(model));
  return {};
}

Result<void> read_event(const json& value, const std::string& where, Scenario& scenario) {
  Object object(value, where);
  TRY(object.check());
  ScenarioEvent event;
  std::string kind;
  TRY(object.number("at_s", event.at_s));
  TRY(object.text("kind", kind));
  TRY(object.text("host", event.host));
  TRY(object.finish());
  if (kind == "down") {
    event.kind = ScenarioEvent::Kind::kDown;
  } else if (kind == "up") {
    event.kind = ScenarioEvent::Kind::kUp;
  } else if (kind == "drain") {
    event.kind = ScenarioEvent::Kind::kDrain;
  } else {
    return wrong(where + ".kind", "must be down, up or drain");
  }
  scenario.events.push_back(std::move(event));
  return {};
}

Result<void> read_seconds(Object& object, const std::string& member, std::chrono::seconds& into) {
  auto value = static_cast<double>(into.count());
  TRY(object.number(member, value, 0, 1e7));
  into = std::chrono::seconds(static_cast<std::int64_t>(value));
  return {};
}

Result<void> read_hotspot(const json& value, const std::string& where,
                          placer::HotspotOptions& hotspot) {
  Object object(value, where);
  TRY(object.check());
  TRY(object.count("n", hotspot.n, 1, 100));
  TRY(object.count("k", hotspot.k, 1, 100));
  TRY(object.number("cpu", hotspot.threshold[0], 0, 1));
  TRY(object.number("network", hotspot.threshold[1], 0, 1));
  TRY(object.number("disk", hotspot.threshold[2], 0, 1));
  TRY(object.number("memory", hotspot.threshold[3], 0, 1));
  TRY(object.finish());
  if (hotspot.k > hotspot.n) return wrong(where + ".k", "must be at most n");
  return {};
}

Result<void> read_policy(const json& value, const std::string& where, ScenarioPolicy& policy) {
  Object object(value, where);
  TRY(object.check());
  std::string placement = "share";
  TRY(object.text("placement", placement));
  TRY(object.flag("make_room", policy.make_room));
  TRY(object.flag("hotspots", policy.hotspots));
  TRY(object.number("consolidate_every_s", policy.consolidate_every_s));
  TRY(object.number("headroom", policy.headroom, 0, 0.99));
  TRY(object.number("load_max", policy.load_max, 0, 1));
  TRY(read_seconds(object, "cooldown_s", policy.cooldown.first));
  TRY(object.number("return_after_s", policy.return_after_s));
  TRY(object.number("low_memory", policy.low_memory, 0, 1));
  TRY(object.count("moves_max", policy.moves_max, 1, 10'000));
  TRY(object.count("at_once_max", policy.at_once_max, 1, 10'000));
  TRY(object.count("at_once_per_host", policy.at_once_per_host, 1, 100));
  TRY(object.number("link_bytes_s", policy.link_bytes_s, 1));
  TRY(object.number("merge_s", policy.merge_s));
  TRY(object.number("lies", policy.lies, 0, 1));
  if (const json* const hotspot = object.find("hotspot")) {
    TRY(read_hotspot(*hotspot, object.at("hotspot"), policy.hotspot));
  }
  TRY(object.finish());
  if (placement != "share" && placement != "size") {
    return wrong(where + ".placement", "must be share or size");
  }
  policy.placement =
      placement == "share" ? ScenarioPolicy::Placement::kShare : ScenarioPolicy::Placement::kSize;
  return {};
}

Result<void> read_lists(Object& object, Scenario& scenario) {
  TRY(object.each("hosts", [&](const json& host, const std::string& where) {
    return read_host(host, where, scenario);
  }));
  TRY(object.each("vms", [&](const json& vm, const std::string& where) {
    return read_vm(vm, where, scenario);
  }));
  TRY(object.each("rules", [&](const json& rule, const std::string& where) {
    return read_rule(rule, where, scenario);
  }));
  TRY(object.each("models", [&](const json& model, const std::string& where) {
    return read_model(model, where, scenario);
  }));
  TRY(object.each("events", [&](const json& event, const std::string& where) {
    return read_event(event, where, scenario);
  }));
  return {};
}

}  // namespace

Result<Scenario> read_scenario(std::string_view text) {
  const json root = json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (root.is_discarded()) return fail(Errc::kInvalid, "the scenario is no JSON");
  Object object(root, "");
  TRY(object.check());
  Scenario scenario;
  std::size_t cells = scenario.words * 64;
  double cell_mib = scenario.pages_per_cell / kPagesPerMib;
  TRY(object.text("name", scenario.name));
  TRY(object.count("seed", scenario.seed, 0, 1e15));
  TRY(object.number("interval_s", scenario.interval_s, 0.1, 1e6));
  TRY(object.number("duration_s", scenario.duration_s, 0, 1e8));
  TRY(object.count("cells", cells, 512, 32'768));
  TRY(object.number("cell_mib", cell_mib, 1e-3, 1e6));
  if (cells % 512 != 0) return wrong("cells", "must be a multiple of 512");
  scenario.words = cells / 64;
  scenario.pages_per_cell = cell_mib * kPagesPerMib;
  TRY(read_lists(object, scenario));
  if (const json* const policy = object.find("policy")) {
    TRY(read_policy(*policy, "policy", scenario.policy));
  }
  TRY(object.finish());
  if (scenario.hosts.empty()) return wrong("hosts", "must name one at least");
  return scenario;
}

}  // namespace samepage::cli
