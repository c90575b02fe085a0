#include "placer/event_log.h"

#include <limits>
#include <utility>

#include "placer/stored_time.h"

namespace samepage::placer {
namespace {

std::int64_t stored(std::uint64_t figure) {
  constexpr auto kMax = static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max());
  return static_cast<std::int64_t>(figure < kMax ? figure : kMax);
}

Event read_event(const Statement& row) {
  Event event{.id = row.integer(0),
              .at = time_of(row.integer(1)),
              .kind = row.text(2),
              .text = row.text(3),
              .plan = std::nullopt,
              .vm = row.text(5),
              .host = row.text(6),
              .progress = std::nullopt};
  if (!row.is_null(4)) event.plan = PlanId{row.integer(4)};
  if (!row.is_null(7)) {
    event.progress = MoveProgress{.phase = row.text(7),
                                  .stream_bytes = static_cast<std::uint64_t>(row.integer(8)),
                                  .wire_bytes = static_cast<std::uint64_t>(row.integer(9)),
                                  .page_refs = static_cast<std::uint64_t>(row.integer(10)),
                                  .bytes_remaining = static_cast<std::uint64_t>(row.integer(11)),
                                  .disk_bytes = static_cast<std::uint64_t>(row.integer(12))};
  }
  return event;
}

}  // namespace

Result<Event> EventLog::append(Event event) {
  event.at = clock_.today();
  const SqlValue plan = event.plan ? SqlValue(event.plan->value) : SqlValue(nullptr);

  Transaction change = TRY(database_.begin());
  Statement insert = TRY(database_.prepare(
      "INSERT INTO events (at, kind, text, plan, vm, host) VALUES (?, ?, ?, ?, ?, ?)"));
  TRY(insert.bind({stored_time(event.at), event.kind, event.text, plan, event.vm, event.host}));
  TRY(insert.run());
  event.id = database_.last_insert_id();
  if (event.progress) {
    const MoveProgress& p = *event.progress;
    Statement progress = TRY(database_.prepare(
        "UPDATE events SET phase = ?, stream_bytes = ?, wire_bytes = ?, page_refs = ?,"
        " bytes_remaining = ?, disk_bytes = ? WHERE id = ?"));
    TRY(progress.bind({p.phase, stored(p.stream_bytes), stored(p.wire_bytes), stored(p.page_refs),
                       stored(p.bytes_remaining), stored(p.disk_bytes), event.id}));
    TRY(progress.run());
  }
  Statement drop = TRY(database_.prepare("DELETE FROM events WHERE id <= ?"));
  TRY(drop.bind({event.id - stored(options_.events_max)}));
  TRY(drop.run());
  TRY(change.commit());
  return event;
}

Result<std::vector<Event>> EventLog::since(std::int64_t id, std::optional<PlanId> plan,
                                           std::size_t count) {
  constexpr const char* kColumns =
      "SELECT id, at, kind, text, plan, vm, host, phase, stream_bytes, wire_bytes, page_refs,"
      " bytes_remaining, disk_bytes FROM events WHERE id > ?";
  Statement row = TRY(database_.prepare(
      std::string(kColumns) + (plan ? " AND plan = ?" : " AND ? = 0") + " ORDER BY id LIMIT ?"));
  TRY(row.bind({id, plan ? plan->value : std::int64_t{0}, stored(count)}));
  std::vector<Event> events;
  while (TRY(row.step())) events.push_back(read_event(row));
  return events;
}

}  // namespace samepage::placer
