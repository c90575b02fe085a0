#include "placer/schema.h"

#include <array>
#include <string_view>

namespace samepage::placer {
namespace {

// Times are microseconds since 1970 in UTC; sizes are pages unless the column says bytes. The
// partial index lets at most one plan run, whatever the code above it does.
constexpr std::string_view kFirst = R"sql(
CREATE TABLE plans (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  state TEXT NOT NULL CHECK (state IN ('proposed', 'running', 'done', 'failed', 'cancelled')),
  cancel_requested INTEGER NOT NULL DEFAULT 0,
  created_at INTEGER NOT NULL,
  ended_at INTEGER,
  summary TEXT NOT NULL,
  shared_before INTEGER NOT NULL,
  shared_after INTEGER NOT NULL,
  achieved_before INTEGER,
  achieved_after INTEGER
);
CREATE UNIQUE INDEX one_plan_runs ON plans (state) WHERE state = 'running';

CREATE TABLE moves (
  plan INTEGER NOT NULL REFERENCES plans (id) ON DELETE CASCADE,
  position INTEGER NOT NULL,
  vm TEXT NOT NULL,
  name TEXT NOT NULL,
  sharing_domain TEXT NOT NULL,
  source TEXT NOT NULL,
  target TEXT NOT NULL,
  paused INTEGER NOT NULL,
  reason TEXT NOT NULL,
  gain INTEGER NOT NULL,
  cost INTEGER NOT NULL,
  state TEXT NOT NULL CHECK (state IN ('planned', 'running', 'done', 'failed', 'skipped')),
  error TEXT NOT NULL DEFAULT '',
  PRIMARY KEY (plan, position)
) WITHOUT ROWID;
CREATE UNIQUE INDEX one_move_runs ON moves (plan) WHERE state = 'running';

CREATE TABLE stays (
  plan INTEGER NOT NULL REFERENCES plans (id) ON DELETE CASCADE,
  position INTEGER NOT NULL,
  vm TEXT NOT NULL,
  name TEXT NOT NULL,
  host TEXT NOT NULL,
  reason TEXT NOT NULL,
  PRIMARY KEY (plan, position)
) WITHOUT ROWID;

CREATE TABLE sessions (
  session TEXT PRIMARY KEY,
  plan INTEGER NOT NULL,
  position INTEGER NOT NULL,
  attempt INTEGER NOT NULL,
  started_at INTEGER NOT NULL,
  ended_at INTEGER,
  stream_bytes INTEGER,
  wire_bytes INTEGER,
  page_refs INTEGER,
  page_literals INTEGER,
  zero_pages INTEGER,
  pages_resent INTEGER,
  downtime_us INTEGER,
  total_us INTEGER,
  FOREIGN KEY (plan, position) REFERENCES moves (plan, position) ON DELETE CASCADE
) WITHOUT ROWID;
CREATE INDEX sessions_of_a_move ON sessions (plan, position, attempt);

CREATE TABLE events (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  at INTEGER NOT NULL,
  kind TEXT NOT NULL,
  text TEXT NOT NULL,
  plan INTEGER,
  vm TEXT NOT NULL,
  host TEXT NOT NULL,
  phase TEXT,
  stream_bytes INTEGER,
  wire_bytes INTEGER,
  page_refs INTEGER,
  bytes_remaining INTEGER
);
CREATE INDEX events_of_a_plan ON events (plan, id);

CREATE TABLE hosts (
  name TEXT PRIMARY KEY,
  public_key TEXT NOT NULL UNIQUE,
  enrolled_at INTEGER NOT NULL
) WITHOUT ROWID;

CREATE TABLE domains (
  name TEXT PRIMARY KEY,
  hash_seed INTEGER NOT NULL,
  digest_key BLOB NOT NULL CHECK (length(digest_key) = 32),
  created_at INTEGER NOT NULL
) WITHOUT ROWID;
)sql";

constexpr std::string_view kMoveModes = R"sql(
ALTER TABLE moves ADD COLUMN streams INTEGER NOT NULL DEFAULT 0;
ALTER TABLE moves ADD COLUMN postcopy INTEGER NOT NULL DEFAULT 0;
)sql";

constexpr std::array kSchema{kFirst, kMoveModes};

}  // namespace

Result<void> migrate_schema(Database& database) {
  return database.migrate(kSchema);
}

}  // namespace samepage::placer
