#pragma once

#include <memory>
#include <string>

#include "core/clock.h"
#include "core/database.h"
#include "core/result.h"
#include "placer/event_log.h"
#include "placer/journal.h"
#include "placer/memory_history.h"
#include "placer/planner.h"
#include "placer/policy_store.h"
#include "placer/registry.h"
#include "placer/sharing_history.h"
#include "placer/usage_store.h"

namespace samepage::control {

/// One connection to the placer's SQLite file and what is kept there.
/// Threads: one at a time; every thread that needs the file opens a ledger of its own.
class Ledger {
 public:
  /// Errors as Database::open() and migrate_schema().
  static Result<std::unique_ptr<Ledger>> open(const std::string& path, const Clock& clock);

  placer::Journal& journal() { return journal_; }
  placer::EventLog& events() { return events_; }
  placer::Registry& registry() { return registry_; }
  placer::PolicyStore& policies() { return policies_; }
  /// Options of a plan that keeps to what administrators laid down: rules and overhead models.
  Result<placer::PlanOptions> plan_options();

  placer::UsageStore& usage() { return usage_; }
  placer::SharingHistory& sharing() { return sharing_; }
  placer::MemoryHistory& memory() { return memory_; }

 private:
  Ledger(Database database, const Clock& clock);

  Database database_;
  placer::Journal journal_;
  placer::EventLog events_;
  placer::Registry registry_;
  placer::PolicyStore policies_;
  placer::UsageStore usage_;
  placer::SharingHistory sharing_;
  placer::MemoryHistory memory_;
};

}  // namespace samepage::control
