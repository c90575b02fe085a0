#pragma once

#include "core/result.h"
#include "tools/samepage/api_messages.h"
#include "tools/samepage/subcommands.h"

namespace samepage::cli {

/// What the plan would do and why: every move, and every VM that it leaves alone.
void print_plan(const StoredPlan& plan, Session& session);

/// What a plan that has ended did: a line for every move. An Error when it did less than planned,
/// with a sentence for every move that failed: why, and where the VM is now.
Result<void> report_outcome(const StoredPlan& plan, Session& session);

}  // namespace samepage::cli
