#include "placer/decision.h"

#include <array>
#include <utility>

#include <fmt/format.h>

namespace samepage::placer {
namespace {

struct Named {
  Goal goal;
  std::string_view name;
  Weights weights;
};

constexpr std::array kGoals{
    Named{Goal::kSharing, "sharing", {.sharing = 1}},
    Named{Goal::kHosts, "hosts", {.sharing = 0.5, .hosts = 1}},
    Named{Goal::kMovement, "movement", {.sharing = 0, .movement = 1}},
    Named{Goal::kBalance, "balance", {.sharing = 0.2, .balance = 1}},
};

}  // namespace

Weights weights_of(Goal goal) {
  return kGoals.at(static_cast<std::size_t>(goal)).weights;
}

std::string_view to_string(Goal goal) {
  return kGoals.at(static_cast<std::size_t>(goal)).name;
}

Result<Goal> parse_goal(std::string_view text) {
  std::string names;
  for (const Named& each : kGoals) {
    if (each.name == text) return each.goal;
    names += (names.empty() ? "" : ", ") + std::string(each.name);
  }
  return fail(Errc::kInvalid, fmt::format("no goal is named {}; there are {}", text, names));
}

}  // namespace samepage::placer
