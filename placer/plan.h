#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "core/hypervisor.h"
#include "placer/decision.h"

namespace samepage::placer {

/// One VM to be moved, in the order of the plan.
struct PlannedMove {
  VmId vm;
  std::string name;
  std::string sharing_domain;
  std::string source;
  std::string target;
  bool paused = false;  ///< Its owner had paused it: it moves as it is and stays paused.
  MigrateMode mode{};
  std::string reason;           ///< One sentence with figures, for people.
  std::string cause = "asked";  ///< The same for programs: "asked", "rule", "hotspot", "goal".
  std::int64_t gain_pages =
      0;  ///< Predicted change of the fleet's shared pages by this move, in order.
  std::uint64_t cost_pages =
      0;             ///< Pages that the target lacks: what dedup cannot save on the wire.
  Terms terms = {};  ///< What spoke for the target.
};

/// One VM that is left where it is, and why.
struct Stay {
  VmId vm;
  std::string name;
  std::string host;
  std::string reason;  ///< One sentence, for people.

  /// The same for programs: "fixed" (it must not be moved), "refused" (what asks for its move finds
  /// no place), "unasked" (nothing asks for it), "no_host" (there is no other), or of the host that
  /// would be best: "no_better", "too_small", "doubtful", "too_dear", "no_room", "too_many_moves".
  std::string cause = "unasked";
  std::string best_host = {};   ///< The best other place; empty where none was looked for.
  std::int64_t gain_pages = 0;  ///< What going there would gain by the weights.
};

/// Who wanted a plan.
enum class PlanKind : std::uint8_t {
  kAsked,        ///< An administrator.
  kShadow,       ///< The placer, to show what it would have done.
  kRecommended,  ///< The placer, for an administrator to apply.
  kAutomatic,    ///< The placer, which applies it.
};
std::string_view to_string(PlanKind kind);  ///< "asked", ...

/// What plan() proposes. Every VM of the fleet is in `moves` (once; a VM that must wait on a third
/// host twice) or in `stays` once.
struct Plan {
  std::vector<PlannedMove> moves;
  std::vector<Stay> stays;
  std::uint64_t shared_before_pages = 0;  ///< Predicted, of the whole fleet.
  std::uint64_t shared_after_pages = 0;
  std::string summary;  ///< One sentence: what the moves are for, or why there are none.

  PlanKind kind = PlanKind::kAsked;
  Goal goal = Goal::kSharing;
  Weights weights;
  std::uint64_t hosts_before = 0;  ///< That hold a VM.
  std::uint64_t hosts_after = 0;
  std::uint64_t hosts_bound = 0;  ///< No placement needs fewer; 0: was not asked for.

  /// That the whole fleet needs when it is packed anew, once all is merged; 0: was not searched
  /// for. One plan may not get there, for what arrives is merged later: plan again then.
  std::uint64_t hosts_packed = 0;
  std::vector<std::string> freed_hosts;  ///< That hold none any more.
  std::vector<std::string> notes;        ///< What was left out of account, and why.
};

}  // namespace samepage::placer
