#pragma once

#include <string>

#include "core/result.h"
#include "tools/samepage/api_messages.h"
#include "tools/samepage/subcommands.h"

namespace samepage::cli {

/// Shows a running plan's progress until it ended, then returns it. Lives through a restart of the
/// placer. The first Ctrl-C asks the placer to stop after the running move; the second leaves.
/// kUnavailable: the placer was away too long, or the user left; the plan goes on without us.
Result<StoredPlan> follow_plan(const std::string& id, Session& session);

}  // namespace samepage::cli
