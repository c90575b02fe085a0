#pragma once

#include <cstdint>

#include "core/result.h"
#include "tools/samepage/api_messages.h"
#include "tools/samepage/subcommands.h"

namespace samepage::cli {

enum class PlanDetail : std::uint8_t {
  kReasons,  ///< Why each VM moves or stays.
  kTerms,    ///< And the terms that spoke for each move, with their weights.
};

/// What the plan would do and why: every move, and every VM that it leaves alone.
void print_plan(const StoredPlan& plan, Session& session, PlanDetail detail = PlanDetail::kReasons);

/// What a plan that has ended did: a line for every move. An Error when it did less than planned,
/// with a sentence for every move that failed: why, and where the VM is now.
Result<void> report_outcome(const StoredPlan& plan, Session& session);

}  // namespace samepage::cli
