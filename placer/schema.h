#pragma once

#include "core/database.h"

namespace samepage::placer {

/// Brings the placer's SQLite file up to date: plans, moves, sessions, events, hosts, domains. Call
/// it once for each connection, before Journal, EventLog or Registry is used on it.
/// Errors as Database::migrate.
Result<void> migrate_schema(Database& database);

}  // namespace samepage::placer
