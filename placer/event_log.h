#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "core/clock.h"
#include "core/database.h"
#include "core/result.h"
#include "placer/carrier.h"
#include "placer/journal.h"

namespace samepage::placer {

/// Something that an administrator may want to know.
struct Event {
  std::int64_t id = 0;  ///< Rising, from 1; chosen by append().
  std::chrono::system_clock::time_point at{};
  std::string kind;  ///< One word with underscores: "move_started".
  std::string text;  ///< One sentence.
  std::optional<PlanId> plan{};
  std::string vm{};    ///< A VM's name, or empty.
  std::string host{};  ///< A host's name, or empty.
  std::optional<MoveProgress> progress{};
};

/// The bounded history of events, in the placer's SQLite file.
/// Threads, lifetime and errors: as Journal.
class EventLog {
 public:
  struct Options {
    std::size_t events_max = 20'000;  ///< The oldest are dropped beyond this.
  };

  EventLog(const Options& options, Database& database, const Clock& clock)
      : options_(options), database_(database), clock_(clock) {}

  /// Stores the event; its id and time are set here. Returns it as stored.
  Result<Event> append(Event event);

  /// At most `count` events with an id above `id`, oldest first, of one plan or of all.
  Result<std::vector<Event>> since(std::int64_t id, std::optional<PlanId> plan, std::size_t count);

 private:
  Options options_;
  Database& database_;
  const Clock& clock_;
};

}  // namespace samepage::placer
