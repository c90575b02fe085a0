#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "core/result.h"
#include "placer/packing/problem.h"

namespace samepage::placer {

/// What speaks for a host, each term from 0 to 1.
struct Terms {
  double sharing = 0;   ///< Part of the VM's pages that are there already.
  double hosts = 0;     ///< How full the host is then; 0 when it was empty.
  double movement = 0;  ///< Part of the VM's pages that need not cross the wire.
  double balance = 0;   ///< What is left of the host's scarcest resource then.
  double warmth = 0;    ///< Of a VM that is about to start: what of it the host has cached.
};

/// How much each term counts. The score of a host is the sum of weight * term.
struct Weights {
  double sharing = 1;
  double hosts = 0;
  double movement = 0;
  double balance = 0;
  double warmth = 0;  ///< Counts for VMs about to start only.

  double score(const Terms& terms) const {
    return sharing * terms.sharing + hosts * terms.hosts + movement * terms.movement +
           balance * terms.balance + warmth * terms.warmth;
  }
};

/// What a plan is for. Each is a set of weights; rules, drains and hotspots come first with all.
enum class Goal : std::uint8_t {
  kSharing,   ///< Most sharing: {sharing 1}.
  kHosts,     ///< Fewest hosts: {hosts 1, sharing 0.5}.
  kMovement,  ///< Least movement, only what must be: {movement 1}.
  kBalance,   ///< Hosts equally full: {balance 1, sharing 0.2}.
};
Weights weights_of(Goal goal);
std::string_view to_string(Goal goal);  ///< "sharing", ...

/// kInvalid: no such goal; the message lists them.
Result<Goal> parse_goal(std::string_view text);

/// One move, by position in the scene.
struct Step {
  std::uint32_t vm = 0;
  std::uint32_t source = kNowhere;  ///< kNowhere: it is placed for the first time.
  std::uint32_t target = 0;
  std::string reason;     ///< One sentence with figures, for people.
  double gain_pages = 0;  ///< Change of what the fleet shares.
  double cost_pages = 0;  ///< Pages that the target lacks.
  Terms terms;
};

/// A VM that stays although something speaks for its moving, and why.
struct Refusal {
  std::uint32_t vm = 0;
  std::string reason;
};

/// What one of the decision functions proposes. Steps are in an order in which each fits when its
/// turn comes.
struct Decision {
  std::vector<Step> steps;
  std::vector<Refusal> refusals;
  std::vector<std::uint32_t> freed_hosts;  ///< Empty at the end, by this decision.
};

}  // namespace samepage::placer
