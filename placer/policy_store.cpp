#include "placer/policy_store.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <utility>

#include <fmt/format.h>

namespace samepage::placer {
namespace {

constexpr std::array<std::string_view, 4> kModes{"manual", "shadow", "recommend", "automatic"};
constexpr std::size_t kNameMax = 63;
constexpr std::size_t kMembersMax = 1'000;
constexpr std::size_t kRulesMax = 1'000;

bool is_name(std::string_view name) {
  const auto is_allowed = [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' ||
           c == '.' || c == '_';
  };
  return !name.empty() && name.size() <= kNameMax &&
         std::all_of(name.begin(), name.end(), is_allowed);
}

Result<void> check(const Rule& rule) {
  if (!is_name(rule.name)) {
    return fail(Errc::kInvalid,
                "a rule's name has 1 to 63 letters, digits, dots, hyphens or underscores");
  }
  if (rule.vms.size() > kMembersMax || rule.hosts.size() > kMembersMax) {
    return fail(Errc::kInvalid, "rule " + rule.name + " names more than 1,000 VMs or hosts");
  }
  return check_shape(rule);
}

constexpr std::size_t kLimitMax = 64;
constexpr std::array<std::pair<std::string_view, std::size_t MoveLimits::*>, 3> kLimits{
    {{"moves_at_once", &MoveLimits::at_once},
     {"moves_per_host", &MoveLimits::per_host},
     {"moves_per_link", &MoveLimits::per_link}}};
constexpr std::array<std::string_view, kLoads> kLoadNames{"cpu", "network", "disk"};
constexpr std::size_t kClassBytesMax = 255;
constexpr std::size_t kModelsMax = 1'000;

Result<void> check(const ClassModel& model) {
  const auto is_class = [](const std::string& name) {
    return !name.empty() && name.size() <= kClassBytesMax;
  };
  if (!is_class(model.source) || !is_class(model.target) || model.source == model.target) {
    return fail(Errc::kInvalid,
                "an overhead model is from one class of hardware to another; `samepage hosts` "
                "shows those of the hosts");
  }
  const bool sound = std::isfinite(model.constant) && std::isfinite(model.median_error_pct) &&
                     std::isfinite(model.p90_error_pct) &&
                     std::all_of(model.factors.begin(), model.factors.end(),
                                 [](double factor) { return std::isfinite(factor); });
  if (!sound || model.of == Resource::kMemory) {
    return fail(Errc::kInvalid,
                "an overhead model has sound numbers, and is of cpu, network or disk");
  }
  return {};
}

std::int64_t number(const std::string& text, std::int64_t otherwise) {
  std::int64_t value = otherwise;
  std::from_chars(text.data(), text.data() + text.size(), value);
  return value;
}

}  // namespace

std::string_view to_string(Mode mode) {
  return kModes.at(static_cast<std::size_t>(mode));
}

Result<Mode> parse_mode(std::string_view text) {
  for (std::size_t i = 0; i < kModes.size(); ++i) {
    if (kModes.at(i) == text) return static_cast<Mode>(i);
  }
  return fail(Errc::kInvalid, "no mode is named " + std::string(text) +
                                  "; there are manual, shadow, recommend, automatic");
}

Result<std::vector<Rule>> PolicyStore::rules() {
  std::vector<Rule> rules;
  Statement row = TRY(database_.prepare("SELECT name, kind FROM rules ORDER BY name"));
  TRY(row.bind({}));
  while (TRY(row.step())) {
    Rule rule;
    rule.name = row.text(0);
    rule.kind = TRY(parse_rule_kind(row.text(1)));
    rules.push_back(std::move(rule));
  }
  Statement member = TRY(database_.prepare(
      "SELECT name FROM rule_members WHERE rule = ? AND is_host = ? ORDER BY position"));
  for (Rule& rule : rules) {
    for (const bool is_host : {false, true}) {
      TRY(member.bind({rule.name, std::int64_t{is_host}}));
      while (TRY(member.step())) (is_host ? rule.hosts : rule.vms).push_back(member.text(0));
    }
  }
  return rules;
}

Result<void> PolicyStore::add(const Rule& rule) {
  Transaction change = TRY(database_.begin());
  TRY(insert(rule));
  return change.commit();
}

Result<void> PolicyStore::replace(const std::vector<Rule>& rules) {
  Transaction change = TRY(database_.begin());
  Statement drop = TRY(database_.prepare("DELETE FROM rules"));
  TRY(drop.bind({}));
  TRY(drop.run());
  for (const Rule& rule : rules) TRY(insert(rule));
  return change.commit();
}

Result<void> PolicyStore::insert(const Rule& rule) {
  TRY(check(rule));
  const std::vector<Rule> others = TRY(rules());
  if (others.size() >= kRulesMax) return fail(Errc::kInvalid, "there are 1,000 rules already");
  for (const Rule& other : others) {
    if (other.name == rule.name) {
      return fail(Errc::kInvalid, "there is a rule named " + rule.name + " already");
    }
  }
  Statement insert = TRY(database_.prepare("INSERT INTO rules (name, kind) VALUES (?, ?)"));
  TRY(insert.bind({rule.name, to_string(rule.kind)}));
  TRY(insert.run());
  Statement member = TRY(database_.prepare(
      "INSERT INTO rule_members (rule, is_host, position, name) VALUES (?, ?, ?, ?)"));
  for (const bool is_host : {false, true}) {
    std::int64_t position = 0;
    for (const std::string& name : is_host ? rule.hosts : rule.vms) {
      TRY(member.bind({rule.name, std::int64_t{is_host}, position++, name}));
      TRY(member.run());
    }
  }
  return {};
}

Result<void> PolicyStore::remove(std::string_view name) {
  Statement drop = TRY(database_.prepare("DELETE FROM rules WHERE name = ?"));
  TRY(drop.bind({name}));
  TRY(drop.run());
  if (database_.rows_changed() == 1) return {};
  return fail(Errc::kNotFound,
              "no rule named " + std::string(name) + "; `samepage rules` lists them");
}

Result<PolicyStore::Labels> PolicyStore::labels() {
  Statement row = TRY(database_.prepare("SELECT host, label, value FROM host_labels"));
  TRY(row.bind({}));
  Labels labels;
  while (TRY(row.step())) labels[row.text(0)][row.text(1)] = row.text(2);
  return labels;
}

Result<void> PolicyStore::set_label(const std::string& host, const std::string& label,
                                    const std::string& value) {
  if (!is_name(label) || (!value.empty() && !is_name(value))) {
    return fail(Errc::kInvalid,
                "a label is KEY=VALUE, each of 1 to 63 letters, digits, dots, hyphens or "
                "underscores; without a value it is taken away");
  }
  Transaction change = TRY(database_.begin());
  Statement known = TRY(database_.prepare("SELECT 1 FROM hosts WHERE name = ?"));
  TRY(known.bind({host}));
  if (!TRY(known.step())) {
    return fail(Errc::kNotFound, "no host named " + host + "; `samepage hosts` lists them");
  }
  Statement drop = TRY(database_.prepare("DELETE FROM host_labels WHERE host = ? AND label = ?"));
  TRY(drop.bind({host, label}));
  TRY(drop.run());
  if (!value.empty()) {
    Statement insert =
        TRY(database_.prepare("INSERT INTO host_labels (host, label, value) VALUES (?, ?, ?)"));
    TRY(insert.bind({host, label, value}));
    TRY(insert.run());
  }
  return change.commit();
}

Result<std::vector<ClassModel>> PolicyStore::class_models() {
  Statement row = TRY(database_.prepare(
      "SELECT id, source, target, resource, constant, factor_cpu, factor_network, factor_disk, "
      "median_error_pct, p90_error_pct FROM class_models ORDER BY id"));
  TRY(row.bind({}));
  std::vector<ClassModel> models;
  while (TRY(row.step())) {
    const auto* const of = std::find(kLoadNames.begin(), kLoadNames.end(), row.text(3));
    if (of == kLoadNames.end()) continue;
    models.push_back({.id = row.integer(0),
                      .source = row.text(1),
                      .target = row.text(2),
                      .of = static_cast<Resource>(of - kLoadNames.begin()),
                      .constant = row.real(4),
                      .factors = {row.real(5), row.real(6), row.real(7)},
                      .median_error_pct = row.real(8),
                      .p90_error_pct = row.real(9)});
  }
  return models;
}

Result<ClassModel> PolicyStore::keep_class_model(ClassModel model) {
  TRY(check(model));
  Transaction change = TRY(database_.begin());
  const std::string_view of = kLoadNames.at(static_cast<std::size_t>(model.of));
  Statement drop = TRY(database_.prepare(
      "DELETE FROM class_models WHERE source = ? AND target = ? AND resource = ?"));
  TRY(drop.bind({model.source, model.target, of}));
  TRY(drop.run());
  if (TRY(class_models()).size() >= kModelsMax) {
    return fail(Errc::kInvalid, "there are 1,000 overhead models already");
  }
  Statement insert = TRY(database_.prepare(
      "INSERT INTO class_models (source, target, resource, constant, factor_cpu, factor_network, "
      "factor_disk, median_error_pct, p90_error_pct) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"));
  TRY(insert.bind({model.source, model.target, of, model.constant, model.factors[0],
                   model.factors[1], model.factors[2], model.median_error_pct,
                   model.p90_error_pct}));
  TRY(insert.run());
  model.id = database_.last_insert_id();
  TRY(change.commit());
  return model;
}

Result<void> PolicyStore::remove_class_model(std::int64_t id) {
  Statement drop = TRY(database_.prepare("DELETE FROM class_models WHERE id = ?"));
  TRY(drop.bind({id}));
  TRY(drop.run());
  if (database_.rows_changed() == 1) return {};
  return fail(Errc::kNotFound,
              "no overhead model " + std::to_string(id) + "; `samepage model list` lists them");
}

Result<Policy> PolicyStore::policy() {
  Statement row = TRY(database_.prepare("SELECT name, value FROM settings"));
  TRY(row.bind({}));
  Policy policy;
  while (TRY(row.step())) {
    const std::string name = row.text(0);
    const std::string value = row.text(1);
    const auto seconds = [&](std::chrono::seconds otherwise) {
      return std::chrono::seconds(number(value, otherwise.count()));
    };
    if (name == "mode") policy.mode = TRY(parse_mode(value));
    if (name == "goal") policy.goal = TRY(parse_goal(value));
    if (name == "every_s") policy.every = seconds(policy.every);
    if (name == "cooldown_s") policy.cooldown = seconds(policy.cooldown);
    for (const auto& [limit, member] : kLimits) {
      if (name != limit) continue;
      policy.limits.*member = static_cast<std::size_t>(number(value, 1));
    }
  }
  return policy;
}

Result<void> PolicyStore::set_policy(const Policy& policy) {
  constexpr std::int64_t kDay = 86'400;
  if (policy.every.count() < 1 || policy.every.count() > kDay || policy.cooldown.count() < 0 ||
      policy.cooldown.count() > kDay) {
    return fail(Errc::kInvalid, "the placer looks every 1 to 86400 s; a VM rests 0 to 86400 s");
  }
  for (const auto& [name, member] : kLimits) {
    if (policy.limits.*member >= 1 && policy.limits.*member <= kLimitMax) continue;
    return fail(Errc::kInvalid, fmt::format("{} is 1 to {}", name, kLimitMax));
  }
  Transaction change = TRY(database_.begin());
  Statement put =
      TRY(database_.prepare("INSERT OR REPLACE INTO settings (name, value) VALUES (?, ?)"));
  const auto write = [&](std::string_view name, std::string_view value) -> Result<void> {
    TRY(put.bind({name, value}));
    return put.run();
  };
  TRY(write("mode", to_string(policy.mode)));
  TRY(write("goal", to_string(policy.goal)));
  TRY(write("every_s", std::to_string(policy.every.count())));
  TRY(write("cooldown_s", std::to_string(policy.cooldown.count())));
  for (const auto& [name, member] : kLimits) {
    TRY(write(name, std::to_string(policy.limits.*member)));
  }
  return change.commit();
}

}  // namespace samepage::placer
