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

// Moves of one plan may run at the same time, but those of one VM never do. Names in `notes` and
// `freed_hosts` are one a line.
constexpr std::string_view kPlansOfAllKinds = R"sql(
DROP INDEX one_move_runs;
CREATE UNIQUE INDEX one_move_of_a_vm_runs ON moves (vm) WHERE state = 'running';
ALTER TABLE plans ADD COLUMN kind TEXT NOT NULL DEFAULT 'asked';
ALTER TABLE plans ADD COLUMN goal TEXT NOT NULL DEFAULT 'sharing';
ALTER TABLE plans ADD COLUMN weight_sharing REAL NOT NULL DEFAULT 1;
ALTER TABLE plans ADD COLUMN weight_hosts REAL NOT NULL DEFAULT 0;
ALTER TABLE plans ADD COLUMN weight_movement REAL NOT NULL DEFAULT 0;
ALTER TABLE plans ADD COLUMN weight_balance REAL NOT NULL DEFAULT 0;
ALTER TABLE plans ADD COLUMN hosts_before INTEGER NOT NULL DEFAULT 0;
ALTER TABLE plans ADD COLUMN hosts_after INTEGER NOT NULL DEFAULT 0;
ALTER TABLE plans ADD COLUMN hosts_bound INTEGER NOT NULL DEFAULT 0;
ALTER TABLE plans ADD COLUMN freed_hosts TEXT NOT NULL DEFAULT '';
ALTER TABLE plans ADD COLUMN notes TEXT NOT NULL DEFAULT '';
ALTER TABLE moves ADD COLUMN term_sharing REAL NOT NULL DEFAULT 0;
ALTER TABLE moves ADD COLUMN term_hosts REAL NOT NULL DEFAULT 0;
ALTER TABLE moves ADD COLUMN term_movement REAL NOT NULL DEFAULT 0;
ALTER TABLE moves ADD COLUMN term_balance REAL NOT NULL DEFAULT 0;

CREATE TABLE rules (
  name TEXT PRIMARY KEY,
  kind TEXT NOT NULL
) WITHOUT ROWID;

CREATE TABLE rule_members (
  rule TEXT NOT NULL REFERENCES rules (name) ON DELETE CASCADE,
  is_host INTEGER NOT NULL,
  position INTEGER NOT NULL,
  name TEXT NOT NULL,
  PRIMARY KEY (rule, is_host, position)
) WITHOUT ROWID;

CREATE TABLE host_labels (
  host TEXT NOT NULL REFERENCES hosts (name) ON DELETE CASCADE,
  label TEXT NOT NULL,
  value TEXT NOT NULL,
  PRIMARY KEY (host, label)
) WITHOUT ROWID;

CREATE TABLE settings (
  name TEXT PRIMARY KEY,
  value TEXT NOT NULL
) WITHOUT ROWID;

CREATE TABLE usage (
  subject TEXT NOT NULL,
  at INTEGER NOT NULL,
  cpu REAL NOT NULL,
  network REAL NOT NULL,
  disk REAL NOT NULL,
  memory REAL NOT NULL,
  PRIMARY KEY (subject, at)
) WITHOUT ROWID;
CREATE INDEX usage_by_age ON usage (at);
)sql";

// What KSM made of the predictions; see sharing_history.h.
constexpr std::string_view kSharingHistory = R"sql(
CREATE TABLE sharing_history (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  host TEXT NOT NULL,
  at INTEGER NOT NULL,
  vms INTEGER NOT NULL,
  predicted REAL NOT NULL,
  low REAL NOT NULL,
  high REAL NOT NULL,
  achieved INTEGER NOT NULL,
  full_scans INTEGER NOT NULL
);
CREATE INDEX sharing_history_of_a_host ON sharing_history (host, id);
)sql";

constexpr std::string_view kMoveModes = R"sql(
ALTER TABLE moves ADD COLUMN streams INTEGER NOT NULL DEFAULT 0;
ALTER TABLE moves ADD COLUMN postcopy INTEGER NOT NULL DEFAULT 0;
)sql";

// What `samepage model fit` found; see class_model.h.
constexpr std::string_view kClassModels = R"sql(
CREATE TABLE class_models (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  source TEXT NOT NULL,
  target TEXT NOT NULL,
  resource TEXT NOT NULL CHECK (resource IN ('cpu', 'network', 'disk')),
  constant REAL NOT NULL,
  factor_cpu REAL NOT NULL,
  factor_network REAL NOT NULL,
  factor_disk REAL NOT NULL,
  median_error_pct REAL NOT NULL,
  p90_error_pct REAL NOT NULL,
  UNIQUE (source, target, resource)
);
)sql";

constexpr std::string_view kMoveTimes = R"sql(
ALTER TABLE moves ADD COLUMN time_max INTEGER NOT NULL DEFAULT 0;
)sql";

constexpr std::string_view kCauses = R"sql(
ALTER TABLE plans ADD COLUMN hosts_packed INTEGER NOT NULL DEFAULT 0;
ALTER TABLE moves ADD COLUMN cause TEXT NOT NULL DEFAULT 'asked';
ALTER TABLE stays ADD COLUMN cause TEXT NOT NULL DEFAULT 'unasked';
ALTER TABLE stays ADD COLUMN best_host TEXT NOT NULL DEFAULT '';
ALTER TABLE stays ADD COLUMN gain INTEGER NOT NULL DEFAULT 0;
)sql";

constexpr std::string_view kTemplatePages = R"sql(
ALTER TABLE sessions ADD COLUMN template_pages INTEGER;
)sql";

// To whom the memory of VMs belonged; see memory_history.h.
constexpr std::string_view kVmMemory = R"sql(
CREATE TABLE vm_memory (
  vm TEXT NOT NULL,
  at INTEGER NOT NULL,
  host TEXT NOT NULL,
  own INTEGER NOT NULL,
  of_template INTEGER NOT NULL,
  ksm INTEGER NOT NULL,
  PRIMARY KEY (vm, at)
) WITHOUT ROWID;
CREATE INDEX vm_memory_by_age ON vm_memory (at);
)sql";

constexpr std::string_view kDiskBytes = R"sql(
ALTER TABLE sessions ADD COLUMN disk_bytes INTEGER;
ALTER TABLE events ADD COLUMN disk_bytes INTEGER NOT NULL DEFAULT 0;
)sql";

constexpr std::array kSchema{kFirst,       kPlansOfAllKinds, kSharingHistory, kMoveModes,
                             kClassModels, kMoveTimes,       kCauses,         kTemplatePages,
                             kVmMemory,    kDiskBytes};

}  // namespace

Result<void> migrate_schema(Database& database) {
  return database.migrate(kSchema);
}

}  // namespace samepage::placer
