#include "tools/samepage-placer/ledger.h"

#include <utility>

#include "placer/schema.h"

namespace samepage::control {

Ledger::Ledger(Database database, const Clock& clock)
    : database_(std::move(database)),
      journal_({}, database_, clock),
      events_({}, database_, clock),
      registry_({}, database_, clock),
      policies_(database_),
      usage_({}, database_, clock),
      sharing_({}, database_, clock),
      memory_({}, database_, clock) {}

Result<std::unique_ptr<Ledger>> Ledger::open(const std::string& path, const Clock& clock) {
  Database database = TRY(Database::open({.path = path}));
  TRY(placer::migrate_schema(database));
  return std::unique_ptr<Ledger>(new Ledger(std::move(database), clock));
}

Result<placer::PlanOptions> Ledger::plan_options() {
  placer::PlanOptions options;
  options.rules = TRY(policies_.rules());
  options.class_models = TRY(policies_.class_models());
  return options;
}

}  // namespace samepage::control
