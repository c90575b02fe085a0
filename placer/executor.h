#pragma once

#include <chrono>
#include <cstddef>
#include <functional>
#include <optional>
#include <stop_token>
#include <string>
#include <vector>

#include "core/clock.h"
#include "core/mutex.h"
#include "core/result.h"
#include "placer/carrier.h"
#include "placer/departures.h"
#include "placer/event_log.h"
#include "placer/fleet.h"
#include "placer/journal.h"
#include "placer/settlement.h"

namespace samepage::placer {

/// Waits until `until`, or until `stop` is requested, whichever is first. The executor's only way
/// to let time pass: rest_on_the_clock in programs, a step of the fake clock in tests.
using Rest = std::function<void(Deadline until, std::stop_token stop)>;
void rest_on_the_clock(Deadline until, std::stop_token stop);

/// 32 random hexadecimal characters. kIo: no randomness.
Result<std::string> random_session();

/// Carries plans out, as many moves at a time as the limits let (departures.h), and writes every
/// step into the journal before it is taken. After a failed move the plan ends: its VM stays on the
/// source, moves that go on are waited for, and later ones are skipped.
///
/// Invariant: it does nothing with a VM whose whereabouts it does not know. Where a copy runs is
/// always asked of the hosts, never assumed; see settlement.h. Killed at any moment, carry_out() in
/// the next process goes on from the journal.
/// Threads: one caller at a time; with limits.at_once above 1 each move has a thread of its own
/// while it goes on, which uses the carrier, the clock and the functions of Options beside the
/// others; the journal and the events are used by one thread at a time. Lifetime: borrows
/// everything it is given.
class Executor {
 public:
  struct Options {
    std::chrono::seconds answer_max{20};  ///< For a host to answer one question.
    std::chrono::seconds move_max{3600};  ///< For one migration; then it is cancelled.
    std::chrono::seconds cancel_max{60};  ///< For a cancelled migration to end.
    std::chrono::seconds patience{600};   ///< For hosts to come to a state that can be settled.
    std::chrono::milliseconds ask_interval{2000};      ///< Between two looks at the hosts.
    std::chrono::milliseconds progress_interval{500};  ///< Between two progress events.
    MoveLimits limits;
    int attempts_max = 3;  ///< Of one move, after restarts of the placer.
    Rest rest = rest_on_the_clock;
    std::function<Result<std::string>()> new_session = random_session;
    std::function<void(const Event&)>
        on_event;  ///< Called after each event was stored; may be empty.
  };

  Executor(Options options, Journal& journal, EventLog& events, Carrier& carrier,
           const Clock& clock);

  /// Starts a proposed plan: from here on the journal says that it runs. kNotFound: no such plan.
  /// kInvalid, a conflict: it was started before, another plan runs, or the fleet has changed since
  /// it was computed; the message says which, and a new plan is the remedy. Others: as Journal's.
  Result<void> begin(PlanId id, const Fleet& fleet);

  /// Carries the running plan out to its end and returns how it ended. In the process that began
  /// it as well as after a restart, when a move may be in flight: such a move is waited for or
  /// settled by asking both hosts, and carried out again if it never happened.
  /// kUnavailable: a host that must be asked about a move in flight cannot be asked; the plan goes
  /// on running in the journal: call again later. kTimedOut: `stop` was requested; as before.
  /// kInvalid: the plan does not run. Others: the journal cannot be written; nothing was begun that
  /// it does not know of.
  Result<PlanState> carry_out(PlanId id, const std::stop_token& stop);

 private:
  struct Flight;
  class Flights;
  struct Sight;
  struct Turn;

  std::vector<std::size_t> to_carry(const PlanRecord& plan) const;
  static Flight flight_of(const PlanRecord& plan, std::size_t position);
  Result<void> carry_to_its_end(Flight& flight);
  Result<PlanRecord> running_plan(PlanId id);
  Result<bool> begin_moves(const PlanRecord& plan, const std::stop_token& stop, Flights& flights);
  Result<Journal::MoveEnd> carry(Flight& flight);
  Result<Turn> attempt(Flight& flight);
  Result<Turn> wait_for(Flight& flight);
  Result<MoveOutcome> wait_or_cancel(Flight& flight);
  Result<Turn> settle_flight(Flight& flight);
  Sight look(Flight& flight);
  Turn act(Flight& flight, const Sight& sight);
  Turn settle_copy(Flight& flight, const std::string& host, Verdict verdict);
  Turn stayed(Flight& flight);
  Result<Turn> run_out_of_patience(const Flight& flight, const Sight& sight);
  std::optional<std::string> why_not_now(const Flight& flight);

  Result<PlanState> end_plan(const PlanRecord& plan);
  void tell(const Flight& flight, std::string kind, std::string text);
  void tell(Event event);
  Deadline answer_by() const { return clock_.now() + options_.answer_max; }

  Options options_;
  Mutex ledger_mutex_;  // Of the journal and the events, which share a connection.
  Journal& journal_;
  EventLog& events_;
  Carrier& carrier_;
  const Clock& clock_;
};

}  // namespace samepage::placer
