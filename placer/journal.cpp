#include "placer/journal.h"

#include <array>
#include <limits>
#include <sstream>
#include <utility>

#include "core/check.h"
#include "placer/stored_time.h"

namespace samepage::placer {
namespace {

constexpr std::array<std::string_view, 5> kPlanStates{"proposed", "running", "done", "failed",
                                                      "cancelled"};
constexpr std::array<std::string_view, 5> kMoveStates{"planned", "running", "done", "failed",
                                                      "skipped"};

template <class State>
Result<State> parse_state(const std::array<std::string_view, 5>& names, std::string_view text) {
  for (std::size_t i = 0; i < names.size(); ++i) {
    if (names[i] == text) return static_cast<State>(i);
  }
  return fail(Errc::kCorrupt, "the journal has the unknown state \"" + std::string(text) + "\"");
}

std::string text(PlanId id) {
  return std::to_string(id.value);
}

// SQLite's integers are signed; a figure beyond them was never counted by anyone.
std::int64_t stored(std::uint64_t figure) {
  constexpr auto kMax = static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max());
  return static_cast<std::int64_t>(figure < kMax ? figure : kMax);
}

std::uint64_t figure(const Statement& row, int column) {
  const std::int64_t value = row.integer(column);
  return value < 0 ? 0 : static_cast<std::uint64_t>(value);
}

std::string joined(const std::vector<std::string>& texts) {
  std::string text;
  for (const std::string& each : texts) text += (text.empty() ? "" : "\n") + each;
  return text;
}

std::vector<std::string> lines(const std::string& text) {
  std::vector<std::string> found;
  std::istringstream in(text);
  for (std::string line; std::getline(in, line);) found.push_back(line);
  return found;
}

Result<PlanKind> parse_kind(std::string_view text) {
  for (const PlanKind kind :
       {PlanKind::kAsked, PlanKind::kShadow, PlanKind::kRecommended, PlanKind::kAutomatic}) {
    if (to_string(kind) == text) return kind;
  }
  return fail(Errc::kCorrupt, "the journal has the unknown kind \"" + std::string(text) + "\"");
}

MoveFigures read_figures(const Statement& row, int first, int second) {
  return {.stream_bytes = figure(row, first),
          .wire_bytes = figure(row, first + 1),
          .page_refs = figure(row, first + 2),
          .page_literals = figure(row, first + 3),
          .zero_pages = figure(row, first + 4),
          .pages_resent = figure(row, first + 5),
          .downtime_us = figure(row, first + 6),
          .total_us = figure(row, first + 7),
          .template_pages = figure(row, second),
          .disk_bytes = figure(row, second + 1)};
}

}  // namespace

std::string_view to_string(PlanState state) {
  return kPlanStates.at(static_cast<std::size_t>(state));
}
std::string_view to_string(MoveState state) {
  return kMoveStates.at(static_cast<std::size_t>(state));
}

std::int64_t Journal::today() const {
  return stored_time(clock_.today());
}

Result<PlanId> Journal::propose(const Plan& plan) {
  Transaction change = TRY(database_.begin());
  Statement insert = TRY(database_.prepare(
      "INSERT INTO plans (state, created_at, summary, shared_before, shared_after, kind, goal,"
      " weight_sharing, weight_hosts, weight_movement, weight_balance, hosts_before, hosts_after,"
      " hosts_bound, freed_hosts, notes, hosts_packed)"
      " VALUES ('proposed', ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"));
  const Weights& weights = plan.weights;
  TRY(insert.bind({today(), plan.summary, stored(plan.shared_before_pages),
                   stored(plan.shared_after_pages), to_string(plan.kind), to_string(plan.goal),
                   weights.sharing, weights.hosts, weights.movement, weights.balance,
                   stored(plan.hosts_before), stored(plan.hosts_after), stored(plan.hosts_bound),
                   joined(plan.freed_hosts), joined(plan.notes), stored(plan.hosts_packed)}));
  TRY(insert.run());
  const PlanId id{database_.last_insert_id()};
  TRY(insert_moves(id, plan));
  TRY(insert_stays(id, plan));
  TRY(drop_old_plans());
  TRY(change.commit());
  return id;
}

Result<void> Journal::insert_moves(PlanId id, const Plan& plan) {
  Statement insert = TRY(database_.prepare(
      "INSERT INTO moves (plan, position, vm, name, sharing_domain, source, target, paused, reason,"
      " gain, cost, term_sharing, term_hosts, term_movement, term_balance, streams, postcopy,"
      " time_max, cause, state)"
      " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 'planned')"));
  std::int64_t position = 0;
  for (const PlannedMove& move : plan.moves) {
    TRY(insert.bind({id.value, position++, move.vm.uuid, move.name, move.sharing_domain,
                     move.source, move.target, std::int64_t{move.paused}, move.reason,
                     move.gain_pages, stored(move.cost_pages), move.terms.sharing, move.terms.hosts,
                     move.terms.movement, move.terms.balance, std::int64_t{move.mode.streams},
                     std::int64_t{move.mode.postcopy}, std::int64_t{move.mode.time_max.count()},
                     move.cause}));
    TRY(insert.run());
  }
  return {};
}

Result<void> Journal::insert_stays(PlanId id, const Plan& plan) {
  Statement insert = TRY(database_.prepare(
      "INSERT INTO stays (plan, position, vm, name, host, reason, cause, best_host, gain)"
      " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"));
  std::int64_t position = 0;
  for (const Stay& stay : plan.stays) {
    TRY(insert.bind({id.value, position++, stay.vm.uuid, stay.name, stay.host, stay.reason,
                     stay.cause, stay.best_host, stay.gain_pages}));
    TRY(insert.run());
  }
  return {};
}

Result<void> Journal::drop_old_plans() {
  Statement drop =
      TRY(database_.prepare("DELETE FROM plans WHERE state <> 'running' AND id NOT IN"
                            " (SELECT id FROM plans ORDER BY id DESC LIMIT ?)"));
  TRY(drop.bind({stored(options_.plans_max)}));
  return drop.run();
}

Result<PlanRecord> Journal::plan(PlanId id) {
  Statement row = TRY(database_.prepare(
      "SELECT state, cancel_requested, created_at, ended_at, summary, shared_before, shared_after,"
      " achieved_before, achieved_after, kind, goal, weight_sharing, weight_hosts,"
      " weight_movement, weight_balance, hosts_before, hosts_after, hosts_bound, freed_hosts,"
      " notes, hosts_packed"
      " FROM plans WHERE id = ?"));
  TRY(row.bind({id.value}));
  if (!TRY(row.step())) {
    return fail(Errc::kNotFound, "no plan " + text(id) + "; `samepage plan` makes one");
  }
  PlanRecord record{.id = id,
                    .state = TRY(parse_state<PlanState>(kPlanStates, row.text(0))),
                    .cancel_requested = row.integer(1) != 0,
                    .created_at = time_of(row.integer(2)),
                    .ended_at = std::nullopt,
                    .summary = row.text(4),
                    .shared_before_pages = figure(row, 5),
                    .shared_after_pages = figure(row, 6),
                    .achieved = std::nullopt,
                    .kind = TRY(parse_kind(row.text(9))),
                    .goal = TRY(parse_goal(row.text(10))),
                    .weights = {.sharing = row.real(11),
                                .hosts = row.real(12),
                                .movement = row.real(13),
                                .balance = row.real(14)},
                    .hosts_before = figure(row, 15),
                    .hosts_after = figure(row, 16),
                    .hosts_bound = figure(row, 17),
                    .hosts_packed = figure(row, 20),
                    .freed_hosts = lines(row.text(18)),
                    .notes = lines(row.text(19)),
                    .moves = {},
                    .stays = {}};
  if (!row.is_null(3)) record.ended_at = time_of(row.integer(3));
  if (!row.is_null(7)) {
    record.achieved =
        AchievedSharing{.before_pages = figure(row, 7), .after_pages = figure(row, 8)};
  }
  record.moves = TRY(moves(id));
  record.stays = TRY(stays(id));
  return record;
}

Result<std::vector<MoveRecord>> Journal::moves(PlanId id) {
  Statement row = TRY(database_.prepare(
      "SELECT m.vm, m.name, m.sharing_domain, m.source, m.target, m.reason, m.gain, m.cost,"
      " m.state, m.error, s.session, s.attempt, s.stream_bytes, s.wire_bytes, s.page_refs,"
      " s.page_literals, s.zero_pages, s.pages_resent, s.downtime_us, s.total_us, m.paused,"
      " m.term_sharing, m.term_hosts, m.term_movement, m.term_balance, m.streams, m.postcopy,"
      " m.time_max, m.cause, s.template_pages, s.disk_bytes"
      " FROM moves m LEFT JOIN sessions s ON s.plan = m.plan AND s.position = m.position"
      " AND s.attempt = (SELECT max(attempt) FROM sessions t WHERE t.plan = m.plan"
      " AND t.position = m.position) WHERE m.plan = ? ORDER BY m.position"));
  TRY(row.bind({id.value}));
  std::vector<MoveRecord> records;
  while (TRY(row.step())) {
    MoveRecord record{.move = {.vm = VmId{row.text(0)},
                               .name = row.text(1),
                               .sharing_domain = row.text(2),
                               .source = row.text(3),
                               .target = row.text(4),
                               .paused = row.integer(20) != 0,
                               .mode = {.streams = static_cast<unsigned>(row.integer(25)),
                                        .postcopy = row.integer(26) != 0,
                                        .time_max = std::chrono::seconds(row.integer(27))},
                               .reason = row.text(5),
                               .cause = row.text(28),
                               .gain_pages = row.integer(6),
                               .cost_pages = figure(row, 7),
                               .terms = {.sharing = row.real(21),
                                         .hosts = row.real(22),
                                         .movement = row.real(23),
                                         .balance = row.real(24)}},
                      .state = TRY(parse_state<MoveState>(kMoveStates, row.text(8))),
                      .error = row.text(9),
                      .session = row.text(10),
                      .attempts = static_cast<int>(row.integer(11)),
                      .figures = std::nullopt};
    if (!row.is_null(12)) record.figures = read_figures(row, 12, 29);
    records.push_back(std::move(record));
  }
  return records;
}

Result<std::vector<Stay>> Journal::stays(PlanId id) {
  Statement row = TRY(database_.prepare(
      "SELECT vm, name, host, reason, cause, best_host, gain FROM stays WHERE plan = ?"
      " ORDER BY position"));
  TRY(row.bind({id.value}));
  std::vector<Stay> records;
  while (TRY(row.step())) {
    records.push_back({.vm = VmId{row.text(0)},
                       .name = row.text(1),
                       .host = row.text(2),
                       .reason = row.text(3),
                       .cause = row.text(4),
                       .best_host = row.text(5),
                       .gain_pages = row.integer(6)});
  }
  return records;
}

Result<PlanState> Journal::state(PlanId id) {
  Statement row = TRY(database_.prepare("SELECT state FROM plans WHERE id = ?"));
  TRY(row.bind({id.value}));
  if (!TRY(row.step())) {
    return fail(Errc::kNotFound, "no plan " + text(id) + "; `samepage plan` makes one");
  }
  return parse_state<PlanState>(kPlanStates, row.text(0));
}

Result<std::vector<PlanId>> Journal::newest(std::size_t count) {
  Statement row = TRY(database_.prepare("SELECT id FROM plans ORDER BY id DESC LIMIT ?"));
  TRY(row.bind({stored(count)}));
  std::vector<PlanId> ids;
  while (TRY(row.step())) ids.push_back(PlanId{row.integer(0)});
  return ids;
}

Result<std::optional<PlanId>> Journal::running() {
  Statement row = TRY(database_.prepare("SELECT id FROM plans WHERE state = 'running'"));
  TRY(row.bind({}));
  if (!TRY(row.step())) return std::optional<PlanId>();
  return std::optional<PlanId>(PlanId{row.integer(0)});
}

Result<void> Journal::begin(PlanId id) {
  Transaction change = TRY(database_.begin());
  const PlanState now = TRY(state(id));
  if (now != PlanState::kProposed) {
    return fail(Errc::kInvalid, "plan " + text(id) + " is " + std::string(to_string(now)) +
                                    "; only a proposed plan can be started");
  }
  const std::optional<PlanId> other = TRY(running());
  if (other) {
    return fail(Errc::kInvalid,
                "plan " + text(*other) + " is running; wait for its end or cancel it");
  }
  Statement update = TRY(database_.prepare("UPDATE plans SET state = 'running' WHERE id = ?"));
  TRY(update.bind({id.value}));
  TRY(update.run());
  return change.commit();
}

Result<void> Journal::request_cancel(PlanId id) {
  Transaction change = TRY(database_.begin());
  const PlanState now = TRY(state(id));
  if (now != PlanState::kProposed && now != PlanState::kRunning) {
    return fail(Errc::kInvalid,
                "plan " + text(id) + " has ended: it is " + std::string(to_string(now)));
  }
  Statement update = TRY(database_.prepare("UPDATE plans SET cancel_requested = 1 WHERE id = ?"));
  TRY(update.bind({id.value}));
  TRY(update.run());
  if (now == PlanState::kProposed) {
    Statement end =
        TRY(database_.prepare("UPDATE plans SET state = 'cancelled', ended_at = ? WHERE id = ?"));
    TRY(end.bind({today(), id.value}));
    TRY(end.run());
    Statement skip = TRY(database_.prepare(
        "UPDATE moves SET state = 'skipped', error = 'the plan was cancelled' WHERE plan = ?"));
    TRY(skip.bind({id.value}));
    TRY(skip.run());
  }
  return change.commit();
}

Result<void> Journal::move_started(PlanId id, std::size_t position, const std::string& session) {
  Transaction change = TRY(database_.begin());
  const std::int64_t row_position = stored(position);
  Statement update = TRY(database_.prepare(
      "UPDATE moves SET state = 'running' WHERE plan = ? AND position = ?"
      " AND state IN ('planned', 'running') AND EXISTS"
      " (SELECT 1 FROM plans WHERE id = moves.plan AND state = 'running') AND NOT EXISTS"
      " (SELECT 1 FROM moves m WHERE m.vm = moves.vm AND m.state = 'running'"
      " AND NOT (m.plan = moves.plan AND m.position = moves.position))"));
  TRY(update.bind({id.value, row_position}));
  TRY(update.run());
  if (database_.rows_changed() != 1) {
    return fail(Errc::kInvalid, "move " + std::to_string(position) + " of plan " + text(id) +
                                    " cannot be started now");
  }
  Statement insert = TRY(database_.prepare(
      "INSERT INTO sessions (session, plan, position, attempt, started_at) SELECT ?, ?, ?,"
      " 1 + (SELECT count(*) FROM sessions WHERE plan = ? AND position = ?), ?"));
  TRY(insert.bind({session, id.value, row_position, id.value, row_position, today()}));
  TRY(insert.run());
  return change.commit();
}

Result<void> Journal::move_ended(PlanId id, std::size_t position, const MoveEnd& end) {
  CHECK(end.state == MoveState::kDone || end.state == MoveState::kFailed);
  Transaction change = TRY(database_.begin());
  const std::int64_t row_position = stored(position);
  Statement update =
      TRY(database_.prepare("UPDATE moves SET state = ?, error = ? WHERE plan = ? AND position = ? "
                            "AND state = 'running'"));
  TRY(update.bind({to_string(end.state), end.error, id.value, row_position}));
  TRY(update.run());
  if (database_.rows_changed() != 1) {
    return fail(Errc::kInvalid,
                "move " + std::to_string(position) + " of plan " + text(id) + " does not run");
  }

  constexpr std::string_view kLast =
      " WHERE plan = ? AND position = ? AND attempt ="
      " (SELECT max(attempt) FROM sessions WHERE plan = ? AND position = ?)";
  Statement ended = TRY(database_.prepare("UPDATE sessions SET ended_at = ?" + std::string(kLast)));
  TRY(ended.bind({today(), id.value, row_position, id.value, row_position}));
  TRY(ended.run());
  if (end.figures) {
    const MoveFigures& f = *end.figures;
    Statement figures = TRY(database_.prepare(
        "UPDATE sessions SET stream_bytes = ?, wire_bytes = ?, page_refs = ?, page_literals = ?,"
        " zero_pages = ?, pages_resent = ?, downtime_us = ?, total_us = ?, template_pages = ?,"
        " disk_bytes = ?" +
        std::string(kLast)));
    TRY(figures.bind({stored(f.stream_bytes), stored(f.wire_bytes), stored(f.page_refs),
                      stored(f.page_literals), stored(f.zero_pages), stored(f.pages_resent),
                      stored(f.downtime_us), stored(f.total_us), stored(f.template_pages),
                      stored(f.disk_bytes), id.value, row_position, id.value, row_position}));
    TRY(figures.run());
  }
  return change.commit();
}

Result<void> Journal::finish(PlanId id, PlanState state, const std::string& why_skipped) {
  CHECK(state != PlanState::kProposed);
  CHECK(state != PlanState::kRunning);
  Transaction change = TRY(database_.begin());
  Statement update = TRY(database_.prepare(
      "UPDATE plans SET state = ?, ended_at = ? WHERE id = ? AND state = 'running' AND NOT EXISTS"
      " (SELECT 1 FROM moves WHERE plan = plans.id AND state = 'running')"));
  TRY(update.bind({to_string(state), today(), id.value}));
  TRY(update.run());
  if (database_.rows_changed() != 1) {
    return fail(Errc::kInvalid,
                "plan " + text(id) + " does not run, or one of its moves still does");
  }
  Statement skip = TRY(database_.prepare(
      "UPDATE moves SET state = 'skipped', error = ? WHERE plan = ? AND state = 'planned'"));
  TRY(skip.bind({why_skipped, id.value}));
  TRY(skip.run());
  return change.commit();
}

Result<void> Journal::record_achieved(PlanId id, const AchievedSharing& achieved) {
  Statement update = TRY(
      database_.prepare("UPDATE plans SET achieved_before = ?, achieved_after = ? WHERE id = ?"));
  TRY(update.bind({stored(achieved.before_pages), stored(achieved.after_pages), id.value}));
  TRY(update.run());
  if (database_.rows_changed() != 1) {
    return fail(Errc::kNotFound, "no plan " + text(id));
  }
  return {};
}

}  // namespace samepage::placer
