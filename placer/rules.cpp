#include "placer/rules.h"

#include <algorithm>
#include <array>
#include <map>
#include <set>
#include <string_view>
#include <unordered_set>
#include <utility>

#include <fmt/format.h>

namespace samepage::placer {
namespace {

using Kind = Rule::Kind;

constexpr std::array kKinds{
    std::pair(Kind::kTogether, std::string_view("together")),
    std::pair(Kind::kApart, std::string_view("apart")),
    std::pair(Kind::kPin, std::string_view("pin")),
    std::pair(Kind::kAvoid, std::string_view("avoid")),
    std::pair(Kind::kIgnore, std::string_view("ignore")),
    std::pair(Kind::kMaintenance, std::string_view("maintenance")),
};

/// A rule with its names looked up.
struct Known {
  const Rule* rule = nullptr;
  std::vector<std::uint32_t> vms;
  std::vector<std::uint32_t> hosts;
};

/// The VMs and hosts that rules name.
class Names {
 public:
  Names(const std::vector<Rule>& rules, const Scene& scene) {
    std::unordered_set<std::string_view> vms;
    std::unordered_set<std::string_view> hosts;
    for (const Rule& rule : rules) {
      vms.insert(rule.vms.begin(), rule.vms.end());
      hosts.insert(rule.hosts.begin(), rule.hosts.end());
    }
    for (std::uint32_t i = 0; i < scene.vms.size() && !vms.empty(); ++i) {
      for (const std::string* name : {&scene.vms[i].name, &scene.vms[i].id}) {
        if (vms.contains(*name)) vms_.emplace(*name, i);
      }
    }
    for (std::uint32_t i = 0; i < scene.hosts.size() && !hosts.empty(); ++i) {
      if (hosts.contains(scene.hosts[i].name)) hosts_.emplace(scene.hosts[i].name, i);
    }
  }

  Known look_up(const Rule& rule, std::vector<std::string>& notes) const {
    Known known{.rule = &rule, .vms = {}, .hosts = {}};
    for (const std::string& name : rule.vms) find(rule, "VM", name, vms_, known.vms, notes);
    for (const std::string& name : rule.hosts) find(rule, "host", name, hosts_, known.hosts, notes);
    return known;
  }

 private:
  using Map = std::map<std::string, std::uint32_t, std::less<>>;

  static void find(const Rule& rule, std::string_view what, const std::string& name, const Map& map,
                   std::vector<std::uint32_t>& found, std::vector<std::string>& notes) {
    const auto number = map.find(name);
    if (number != map.end()) {
      if (std::find(found.begin(), found.end(), number->second) == found.end()) {
        found.push_back(number->second);
      }
      return;
    }
    notes.push_back(fmt::format("rule {} names {} {}, which is not there", rule.name, what, name));
  }

  Map vms_;
  Map hosts_;
};

std::vector<Known> look_up(const std::vector<Rule>& rules, const Scene& scene,
                           std::vector<std::string>& notes) {
  const Names names(rules, scene);
  std::vector<Known> known;
  for (const Rule& rule : rules) known.push_back(names.look_up(rule, notes));
  return known;
}

/// VMs that rules of the kind "together" join, directly or through others.
class Groups {
 public:
  explicit Groups(std::size_t vms) : leader_(vms), rule_(vms) {
    for (std::uint32_t vm = 0; vm < vms; ++vm) leader_[vm] = vm;
  }

  std::uint32_t of(std::uint32_t vm) const {
    while (leader_[vm] != vm) vm = leader_[vm];
    return vm;
  }
  void join(std::uint32_t a, std::uint32_t b, const std::string& rule) {
    const std::uint32_t low = std::min(of(a), of(b));
    leader_[std::max(of(a), of(b))] = low;
    rule_[low] = rule;
  }
  const std::string& rule(std::uint32_t vm) const { return rule_[of(vm)]; }

 private:
  std::vector<std::uint32_t> leader_;
  std::vector<std::string> rule_;
};

/// The hosts of one group of VMs, and the rule that narrowed them last.
struct Allowed {
  std::vector<bool> hosts;
  std::string rule;
};

Result<void> narrow(const Known& known, std::uint32_t group, std::map<std::uint32_t, Allowed>& all,
                    const Scene& scene) {
  Allowed& allowed = all[group];
  if (allowed.hosts.empty()) allowed.hosts.assign(scene.hosts.size(), true);
  std::vector<bool> named(scene.hosts.size());
  for (const std::uint32_t host : known.hosts) named[host] = true;
  bool any = false;
  for (std::size_t host = 0; host < named.size(); ++host) {
    const bool wanted = known.rule->kind == Kind::kPin ? named[host] : !named[host];
    allowed.hosts[host] = allowed.hosts[host] && wanted;
    any = any || allowed.hosts[host];
  }
  if (!any) {
    const std::string why = allowed.rule.empty() ? " leaves no host for "
                                                 : " and " + allowed.rule + " leave no host for ";
    return fail(Errc::kInvalid, "rule " + known.rule->name + why + scene.vms[group].name);
  }
  allowed.rule = "rule " + known.rule->name;
  return {};
}

Result<void> check_apart(const Known& known, const Groups& groups, const Scene& scene) {
  std::map<std::uint32_t, std::uint32_t> seen;
  std::vector<bool> reachable(scene.hosts.size());
  for (const std::uint32_t vm : known.vms) {
    const auto [other, is_first] = seen.try_emplace(groups.of(vm), vm);
    if (!is_first) {
      return fail(Errc::kInvalid,
                  fmt::format("rule {} wants {} and {} apart, rule {} wants them together",
                              known.rule->name, scene.vms[other->second].name, scene.vms[vm].name,
                              groups.rule(vm)));
    }
    const std::vector<bool>& allowed = scene.vms[vm].demand.allowed;
    for (std::size_t host = 0; host < reachable.size(); ++host) {
      if (allowed.empty() || allowed[host]) reachable[host] = true;
    }
  }
  const auto hosts = static_cast<std::size_t>(std::count(reachable.begin(), reachable.end(), true));
  if (hosts >= known.vms.size()) return {};
  return fail(Errc::kInvalid,
              fmt::format("rule {} wants {} VMs on as many hosts, but other rules and "
                          "the fleet leave {} hosts for them",
                          known.rule->name, known.vms.size(), hosts));
}

void close_hosts(const Known& known, Scene& scene) {
  for (const std::uint32_t host : known.hosts) {
    scene.hosts[host].leave = true;
    scene.hosts[host].why_closed =
        fmt::format("{} is in maintenance (rule {})", scene.hosts[host].name, known.rule->name);
  }
}

bool is_among(std::uint32_t number, const std::vector<std::uint32_t>& numbers) {
  return std::find(numbers.begin(), numbers.end(), number) != numbers.end();
}

void find_broken(const Known& known, const Scene& scene, const std::vector<std::uint32_t>& host_of,
                 std::vector<BrokenRule>& broken) {
  const auto add = [&](std::uint32_t vm, std::string what) {
    broken.push_back({.vm = vm, .rule = known.rule->name, .what = std::move(what)});
  };
  std::map<std::uint32_t, std::uint32_t> first_on;
  for (const std::uint32_t number : known.vms) {
    const SceneVm& vm = scene.vms[number];
    if (host_of[number] == kNowhere) continue;
    const std::string& host = scene.hosts[host_of[number]].name;
    const bool named = is_among(host_of[number], known.hosts);
    if (known.rule->kind == Kind::kPin && !named) add(number, vm.name + " must not be on " + host);
    if (known.rule->kind == Kind::kAvoid && named) add(number, vm.name + " must not be on " + host);
    if (known.rule->kind == Kind::kApart) {
      const auto [other, is_first] = first_on.try_emplace(host_of[number], number);
      if (is_first) continue;
      add(number,
          fmt::format("{} and {} are both on {}", scene.vms[other->second].name, vm.name, host));
    }
    if (known.rule->kind == Kind::kTogether) {
      const std::uint32_t first = known.vms.front();
      if (host_of[first] == kNowhere || host_of[first] == host_of[number]) continue;
      add(number, fmt::format("{} is on {} and {} on {}", vm.name, host, scene.vms[first].name,
                              scene.hosts[host_of[first]].name));
    }
  }
}

}  // namespace

std::string_view to_string(Rule::Kind kind) {
  for (const auto& [each, name] : kKinds) {
    if (each == kind) return name;
  }
  return "unknown";
}

Result<Rule::Kind> parse_rule_kind(std::string_view text) {
  std::string names;
  for (const auto& [kind, name] : kKinds) {
    if (name == text) return kind;
    names += (names.empty() ? "" : ", ") + std::string(name);
  }
  return fail(Errc::kInvalid,
              fmt::format("no kind of rule is named {}; there are {}", text, names));
}

Result<void> check_shape(const Rule& rule) {
  const bool needs_vms = rule.kind != Kind::kMaintenance;
  const bool needs_hosts =
      rule.kind == Kind::kPin || rule.kind == Kind::kAvoid || rule.kind == Kind::kMaintenance;
  if (needs_vms && rule.vms.empty())
    return fail(Errc::kInvalid, "rule " + rule.name + " names no VM");
  if (needs_hosts && rule.hosts.empty()) {
    return fail(Errc::kInvalid, "rule " + rule.name + " names no host");
  }
  return {};
}

Result<std::vector<std::string>> apply_rules(const std::vector<Rule>& rules, Scene& scene) {
  std::vector<std::string> notes;
  std::set<std::string> names;
  for (const Rule& rule : rules) {
    TRY(check_shape(rule));
    if (!names.insert(rule.name).second) {
      return fail(Errc::kInvalid, "two rules are named " + rule.name);
    }
  }
  const std::vector<Known> all = look_up(rules, scene, notes);
  Groups groups(scene.vms.size());
  for (const Known& known : all) {
    if (known.rule->kind != Kind::kTogether) continue;
    for (const std::uint32_t vm : known.vms) groups.join(known.vms.front(), vm, known.rule->name);
  }
  std::map<std::uint32_t, Allowed> allowed;
  std::uint32_t apart = 0;
  for (const Known& known : all) {
    const Kind kind = known.rule->kind;
    if (kind == Kind::kMaintenance) close_hosts(known, scene);
    for (const std::uint32_t vm : known.vms) {
      if (kind == Kind::kPin || kind == Kind::kAvoid)
        TRY(narrow(known, groups.of(vm), allowed, scene));
      if (kind == Kind::kApart) scene.vms[vm].demand.apart.push_back(apart);
      if (kind == Kind::kIgnore)
        scene.vms[vm].why_fixed = "rule " + known.rule->name + " says to leave it alone";
      if (kind == Kind::kTogether) scene.vms[vm].together = groups.of(vm);
    }
    ++apart;
  }
  for (std::uint32_t vm = 0; vm < scene.vms.size(); ++vm) {
    const auto found = allowed.find(groups.of(vm));
    if (found != allowed.end()) scene.vms[vm].demand.allowed = found->second.hosts;
  }
  for (const Known& known : all) {
    if (known.rule->kind == Kind::kApart) TRY(check_apart(known, groups, scene));
  }
  return notes;
}

std::vector<BrokenRule> broken_rules(const std::vector<Rule>& rules, const Scene& scene,
                                     const std::vector<std::uint32_t>& host_of) {
  std::vector<std::string> notes;
  std::vector<BrokenRule> broken;
  for (const Known& known : look_up(rules, scene, notes)) {
    find_broken(known, scene, host_of, broken);
  }
  return broken;
}

}  // namespace samepage::placer
