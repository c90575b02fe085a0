#pragma once

#include <cstdint>
#include <string>

#include "core/result.h"
#include "tools/samepage/api_messages.h"
#include "tools/samepage/subcommands.h"

namespace samepage::cli {

/// What the first Ctrl-C asks for.
enum class Stop : std::uint8_t {
  kAfterMove,  ///< The running move is carried out, no other one is begun.
  kAtOnce,     ///< The running move is given up; its guest stays where it is.
};

/// Asks the placer to stop a plan.
Result<void> stop_plan(const std::string& id, Stop stop, Session& session);

/// Shows a running plan's progress until it ended, then returns it. Lives through a restart of the
/// placer. The first Ctrl-C asks the placer to stop; the second leaves.
/// kUnavailable: the placer was away too long, or the user left; the plan goes on without us.
Result<StoredPlan> follow_plan(const std::string& id, Stop on_interrupt, Session& session);

}  // namespace samepage::cli
