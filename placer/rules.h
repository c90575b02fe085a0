#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "core/result.h"
#include "placer/scene.h"

namespace samepage::placer {

/// One thing that an administrator wants to hold of every placement.
struct Rule {
  enum class Kind : std::uint8_t {
    kTogether,     ///< These VMs on one host.
    kApart,        ///< These VMs on as many hosts as there are VMs.
    kPin,          ///< These VMs on these hosts only.
    kAvoid,        ///< These VMs on none of these hosts.
    kIgnore,       ///< These VMs are not moved, whatever happens.
    kMaintenance,  ///< These hosts are to be empty.
  };

  Kind kind = Kind::kTogether;
  std::string name;  ///< Unique; messages about it say it.
  std::vector<std::string> vms;
  std::vector<std::string> hosts;
};

std::string_view to_string(Rule::Kind kind);  ///< "together", "apart", ...

/// kInvalid: no such kind; the message lists them.
Result<Rule::Kind> parse_rule_kind(std::string_view text);

/// kInvalid: a rule that names none of what its kind needs.
Result<void> check_shape(const Rule& rule);

/// Writes rules into a scene: groups, allowed hosts, VMs that are fixed, hosts that are closed.
/// Returns a sentence for each VM or host that a rule names and that is not there (it may be gone,
/// or not yet there). kInvalid: two rules, named in the message, cannot both hold, or one alone
/// cannot; the scene is then in no useful state.
Result<std::vector<std::string>> apply_rules(const std::vector<Rule>& rules, Scene& scene);

/// The VMs that are where a rule does not want them, in the rules' order.
struct BrokenRule {
  std::uint32_t vm = 0;
  std::string rule;
  std::string what;  ///< One sentence.
};
std::vector<BrokenRule> broken_rules(const std::vector<Rule>& rules, const Scene& scene,
                                     const std::vector<std::uint32_t>& host_of);

}  // namespace samepage::placer
