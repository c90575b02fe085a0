#include "placer/executor.h"

#include <algorithm>
#include <array>
#include <cerrno>
#include <condition_variable>
#include <deque>
#include <map>
#include <mutex>
#include <system_error>
#include <thread>
#include <utility>

#include <sys/random.h>

#include "core/log.h"

namespace samepage::placer {
namespace {

std::string describe(const std::string& host, std::optional<Presence> presence) {
  if (!presence) return host + " cannot be asked";
  switch (*presence) {
    case Presence::kAbsent:
      return host + " does not have it";
    case Presence::kRunning:
      return host + " runs it";
    case Presence::kPaused:
      return host + " has it paused";
    case Presence::kOther:
      return host + " has it neither running nor paused";
  }
  return host;
}

/// `moves_before`: earlier moves of the plan take it to the source of this one.
std::string why_changed(const MoveRecord& record, bool moves_before, const Fleet& fleet) {
  const PlannedMove& move = record.move;
  const Vm* const vm = fleet.find_vm(move.vm);
  if (vm == nullptr) return move.name + " is gone";
  if (!moves_before && vm->host != move.source) return move.name + " is on " + vm->host + " now";
  if (!vm->copy_on.empty()) return move.name + " has a copy on " + vm->copy_on;
  const VmState planned = move.paused ? VmState::kPaused : VmState::kRunning;
  if (vm->state != planned) return move.name + " is " + std::string(to_string(vm->state)) + " now";
  const Host* const target = fleet.find_host(move.target);
  if (target == nullptr) return move.target + " is gone";
  if (target->state != HostState::kUp) return move.target + " is down";
  return {};
}

}  // namespace

void rest_on_the_clock(Deadline until, std::stop_token stop) {
  std::mutex mutex;
  std::condition_variable_any stopped;
  std::unique_lock lock(mutex);
  stopped.wait_until(lock, std::move(stop), until, [] { return false; });
}

Result<std::string> random_session() {
  std::array<unsigned char, 16> bytes{};
  std::size_t filled = 0;
  while (filled < bytes.size()) {
    const ssize_t count = getrandom(&bytes.at(filled), bytes.size() - filled, 0);
    if (count < 0 && errno == EINTR) continue;
    if (count <= 0) {
      return fail(Errc::kIo, "getrandom: " + std::generic_category().message(errno));
    }
    filled += static_cast<std::size_t>(count);
  }
  constexpr std::string_view kDigits = "0123456789abcdef";
  std::string text;
  for (const unsigned char byte : bytes) {
    text += kDigits.at(byte >> 4U);
    text += kDigits.at(byte & 15U);
  }
  return text;
}

/// One move that is being carried out.
struct Executor::Flight {
  PlanId plan;
  std::size_t position = 0;
  MoveOrder order;
  std::stop_token stop;
  int attempts = 0;
  std::string failure;  ///< What was seen to go wrong with this attempt; empty when nothing was.
  std::optional<MoveFigures> figures;
};

/// The two hosts' answers about one move.
struct Executor::Sight {
  bool goes_on = false;
  std::optional<Presence> source;
  std::optional<Presence> target;
};

/// What follows from a step: look at the hosts (again), try the move again, or its end.
struct Executor::Turn {
  enum class Kind : std::uint8_t { kLook, kRetry, kEnd };

  static Turn look() { return {}; }
  static Turn retry() { return {.kind = Kind::kRetry, .end = {}}; }
  static Turn failed(std::string error) {
    return {.kind = Kind::kEnd,
            .end = {.state = MoveState::kFailed, .error = std::move(error), .figures = {}}};
  }
  static Turn done() {
    return {.kind = Kind::kEnd, .end = {.state = MoveState::kDone, .error = {}, .figures = {}}};
  }

  Kind kind = Kind::kLook;
  Journal::MoveEnd end;
};

Executor::Executor(Options options, Journal& journal, EventLog& events, Carrier& carrier,
                   const Clock& clock)
    : options_(std::move(options)),
      journal_(journal),
      events_(events),
      carrier_(carrier),
      clock_(clock) {}

Result<void> Executor::begin(PlanId id, const Fleet& fleet) {
  const PlanRecord plan = TRY(journal_.plan(id));
  if (plan.state == PlanState::kProposed) {
    std::map<VmId, std::string> taken_to;
    for (const MoveRecord& move : plan.moves) {
      const auto before = taken_to.find(move.move.vm);
      const bool moves_before = before != taken_to.end() && before->second == move.move.source;
      taken_to[move.move.vm] = move.move.target;
      const std::string why = why_changed(move, moves_before, fleet);
      if (why.empty()) continue;
      return fail(Errc::kInvalid, "the fleet has changed since plan " + std::to_string(id.value) +
                                      " was computed (" + why + "); make a new plan");
    }
  }
  TRY(journal_.begin(id));
  tell({.kind = "plan_started",
        .text = "plan " + std::to_string(id.value) + " was started: " + plan.summary,
        .plan = id});
  return {};
}

/// Moves that this call carries out, each on a thread of its own.
class Executor::Flights {
 public:
  /// `carry` runs to the end of the move.
  void begin(std::size_t position, std::function<Result<void>()> carry) {
    threads_.emplace(position, std::jthread([this, position, carry = std::move(carry)] {
                       Result<void> done = carry();
                       const MutexLock lock(mutex_);
                       landed_.emplace_back(position, std::move(done));
                       changed_.notify_all();
                     }));
  }

  bool has(std::size_t position) const { return threads_.contains(position); }
  bool empty() const { return threads_.empty(); }

  /// Waits for one to end.
  Result<void> await_one() {
    std::pair<std::size_t, Result<void>> landed;
    {
      const MutexLock lock(mutex_);
      while (landed_.empty()) changed_.wait(mutex_);
      landed = std::move(landed_.front());
      landed_.pop_front();
    }
    threads_.erase(landed.first);
    return std::move(landed.second);
  }

 private:
  Mutex mutex_;
  std::condition_variable_any changed_;
  std::deque<std::pair<std::size_t, Result<void>>> landed_ GUARDED_BY(mutex_);
  std::map<std::size_t, std::jthread> threads_;  // By the position of its move.
};

Result<PlanState> Executor::carry_out(PlanId id, const std::stop_token& stop) {
  Flights flights;
  Result<bool> begun = false;
  for (;;) {
    const PlanRecord plan = TRY(running_plan(id));
    if (begun) begun = begin_moves(plan, stop, flights);
    if (flights.empty()) {
      if (!TRY(begun)) return end_plan(plan);
      continue;
    }
    const Result<void> landed = flights.await_one();
    if (!landed && begun) begun = tl::unexpected(landed.error());
  }
}

// One at a time needs no thread, and the journal is read again before the next.
Result<bool> Executor::begin_moves(const PlanRecord& plan, const std::stop_token& stop,
                                   Flights& flights) {
  const std::vector<std::size_t> next = to_carry(plan);
  for (const std::size_t position : next) {
    if (flights.has(position)) continue;
    auto carry = [this, stop, flight = flight_of(plan, position)]() mutable {
      flight.stop = stop;
      return carry_to_its_end(flight);
    };
    if (options_.limits.at_once == 1) {
      TRY(carry());
      break;
    }
    flights.begin(position, std::move(carry));
  }
  return !next.empty();
}

// Moves in flight first: those of a placer that died too. Nothing begins once one has failed.
std::vector<std::size_t> Executor::to_carry(const PlanRecord& plan) const {
  std::vector<std::size_t> positions;
  bool may_begin = !plan.cancel_requested;
  for (std::size_t i = 0; i < plan.moves.size(); ++i) {
    if (plan.moves[i].state == MoveState::kRunning) positions.push_back(i);
    if (plan.moves[i].state == MoveState::kFailed) may_begin = false;
  }
  if (!may_begin) return positions;
  const std::vector<std::size_t> more = departures(plan.moves, options_.limits);
  positions.insert(positions.end(), more.begin(), more.end());
  return positions;
}

Executor::Flight Executor::flight_of(const PlanRecord& plan, std::size_t position) {
  const MoveRecord& record = plan.moves.at(position);
  return {.plan = plan.id,
          .position = position,
          .order = {.session = record.session,
                    .vm = record.move.vm,
                    .name = record.move.name,
                    .sharing_domain = record.move.sharing_domain,
                    .source = record.move.source,
                    .target = record.move.target,
                    .paused = record.move.paused,
                    .mode = record.move.mode},
          .stop = {},
          .attempts = record.attempts,
          .failure = {},
          .figures = {}};
}

Result<void> Executor::carry_to_its_end(Flight& flight) {
  Journal::MoveEnd end = TRY(carry(flight));
  end.figures = flight.figures;
  {
    const MutexLock lock(ledger_mutex_);
    TRY(journal_.move_ended(flight.plan, flight.position, end));
  }
  const bool is_done = end.state == MoveState::kDone;
  tell(flight, is_done ? "move_done" : "move_failed",
       is_done ? flight.order.name + " is on " + flight.order.target + " now" : end.error);
  return {};
}

Result<PlanRecord> Executor::running_plan(PlanId id) {
  const MutexLock lock(ledger_mutex_);
  PlanRecord plan = TRY(journal_.plan(id));
  if (plan.state == PlanState::kRunning) return plan;
  return fail(Errc::kInvalid, "plan " + std::to_string(id.value) + " does not run: it is " +
                                  std::string(to_string(plan.state)));
}

Result<Journal::MoveEnd> Executor::carry(Flight& flight) {
  Turn turn = Turn::retry();
  if (!flight.order.session.empty()) {
    tell(flight, "move_recovered",
         "the move of " + flight.order.name + " was in flight; asking both hosts where it is");
    turn = TRY(settle_flight(flight));
  }
  while (turn.kind == Turn::Kind::kRetry) {
    flight.failure.clear();
    flight.figures.reset();
    turn = TRY(attempt(flight));
    if (turn.kind == Turn::Kind::kLook) turn = TRY(settle_flight(flight));
  }
  return turn.end;
}

Result<Executor::Turn> Executor::attempt(Flight& flight) {
  if (flight.stop.stop_requested()) {
    return fail(Errc::kTimedOut, "stopped before " + flight.order.name + " was moved");
  }
  flight.order.session = TRY(options_.new_session());
  {
    const MutexLock lock(ledger_mutex_);
    TRY(journal_.move_started(flight.plan, flight.position, flight.order.session));
  }
  ++flight.attempts;
  const MoveOrder& order = flight.order;
  tell(flight, "move_started",
       order.name + " is moved from " + order.source + " to " + order.target);

  if (const std::optional<std::string> why = why_not_now(flight)) return Turn::failed(*why);
  const Result<void> prepared = carrier_.prepare(order, answer_by());
  if (!prepared) {
    return Turn::failed(order.target + " could not get ready for " + order.name + ": " +
                        prepared.error().message());
  }
  const Result<void> started = carrier_.start(order, answer_by());
  if (!started) {
    flight.failure = "the migration did not start: " + started.error().message();
    return Turn::look();
  }
  return wait_for(flight);
}

std::optional<std::string> Executor::why_not_now(const Flight& flight) {
  const MoveOrder& order = flight.order;
  const Result<Presence> source = carrier_.locate(order.source, order.vm, answer_by());
  if (!source) return order.source + " cannot be asked: " + source.error().message();
  if (*source == (order.paused ? Presence::kPaused : Presence::kRunning)) return std::nullopt;
  return order.name + " was not moved: " + describe(order.source, *source);
}

Result<Executor::Turn> Executor::wait_for(Flight& flight) {
  const MoveOrder& order = flight.order;
  const Result<MoveOutcome> outcome = wait_or_cancel(flight);
  if (flight.stop.stop_requested() && !outcome) {
    return fail(Errc::kTimedOut, "stopped while " + order.name + " was moved");
  }
  if (!outcome) {
    if (flight.failure.empty()) flight.failure = outcome.error().message();
    return Turn::look();
  }
  flight.figures = outcome->figures;
  if (outcome->runs_on == Side::kTarget) return Turn::done();
  flight.failure = outcome->error.empty() ? "the migration failed" : outcome->error;
  return Turn::look();
}

Result<MoveOutcome> Executor::wait_or_cancel(Flight& flight) {
  Deadline told_at{};
  const auto on_progress = [&](const MoveProgress& progress) {
    if (clock_.now() - told_at < options_.progress_interval) return;
    told_at = clock_.now();
    tell({.kind = "progress",
          .text = flight.order.name + ": " + progress.phase,
          .plan = flight.plan,
          .vm = flight.order.name,
          .host = flight.order.source,
          .progress = progress});
  };
  // The source keeps the time that was asked for; this is for one that does not.
  const std::chrono::seconds asked_max = flight.order.mode.time_max;
  const std::chrono::seconds move_max =
      asked_max.count() > 0 ? asked_max + options_.cancel_max : options_.move_max;
  const Deadline ends_by = clock_.now() + move_max;
  Result<MoveOutcome> outcome = carrier_.wait(flight.order, on_progress, flight.stop, ends_by);
  const bool took_too_long = !outcome && outcome.error().code() == Errc::kTimedOut &&
                             !flight.stop.stop_requested() && clock_.now() >= ends_by;
  if (!took_too_long) return outcome;

  flight.failure = "it took longer than " + std::to_string(move_max.count()) + " s";
  const Result<void> cancelled = carrier_.cancel(flight.order, answer_by());
  if (!cancelled) return tl::unexpected(cancelled.error());
  return carrier_.wait(flight.order, on_progress, flight.stop, clock_.now() + options_.cancel_max);
}

Result<Executor::Turn> Executor::settle_flight(Flight& flight) {
  const Deadline patience_ends = clock_.now() + options_.patience;
  bool has_told = false;
  for (;;) {
    if (flight.stop.stop_requested()) {
      return fail(Errc::kTimedOut,
                  "stopped while the move of " + flight.order.name + " was settled");
    }
    const Sight sight = look(flight);
    const Turn turn = sight.goes_on ? TRY(wait_for(flight)) : act(flight, sight);
    if (turn.kind != Turn::Kind::kLook) return turn;
    if (clock_.now() >= patience_ends) return run_out_of_patience(flight, sight);
    if (!has_told && !sight.goes_on) {
      tell(flight, "move_unsettled",
           "waiting to settle the move of " + flight.order.name + ": " +
               describe(flight.order.source, sight.source) + ", " +
               describe(flight.order.target, sight.target));
      has_told = true;
    }
    options_.rest(clock_.now() + options_.ask_interval, flight.stop);
  }
}

Executor::Sight Executor::look(Flight& flight) {
  Sight sight;
  const MoveOrder& order = flight.order;
  const Result<SessionStatus> status = carrier_.query(order, answer_by());
  if (!status) return sight;
  if (status->kind == SessionStatus::Kind::kGoesOn) {
    sight.goes_on = true;
    return sight;
  }
  if (status->kind == SessionStatus::Kind::kEnded) {
    flight.figures = status->outcome.figures;
    if (flight.failure.empty()) flight.failure = status->outcome.error;
  }
  // The source first: what has left it by then can only be on the target.
  const Result<Presence> source = carrier_.locate(order.source, order.vm, answer_by());
  if (!source) return sight;
  sight.source = *source;
  const Result<Presence> target = carrier_.locate(order.target, order.vm, answer_by());
  if (target) sight.target = *target;
  return sight;
}

Executor::Turn Executor::act(Flight& flight, const Sight& sight) {
  const MoveOrder& order = flight.order;
  switch (settle(sight.source, sight.target, order.paused)) {
    case Settling::kAskAgain:
    case Settling::kLookAgain:
    case Settling::kStayedAsk:
      return Turn::look();
    case Settling::kDone:
      return Turn::done();
    case Settling::kStayed:
      return stayed(flight);
    case Settling::kResumeTarget:
      return settle_copy(flight, order.target, Verdict::kResume);
    case Settling::kResumeSource:
      return settle_copy(flight, order.source, Verdict::kResume);
    case Settling::kDiscardTarget:
      return settle_copy(flight, order.target, Verdict::kDiscard);
    case Settling::kDiscardSource:
      return settle_copy(flight, order.source, Verdict::kDiscard);
    case Settling::kGone:
      return Turn::failed("neither " + order.source + " nor " + order.target + " has " +
                          order.name + " any more: it was shut down or moved by someone else");
    case Settling::kTwice:
      return Turn::failed(order.name + " runs on " + order.source + " and on " + order.target +
                          "; stop the wrong one by hand at once");
  }
  return Turn::look();
}

Executor::Turn Executor::settle_copy(Flight& flight, const std::string& host, Verdict verdict) {
  const bool resumes = verdict == Verdict::kResume;
  const Result<void> settled = carrier_.settle(host, flight.order.vm, verdict, answer_by());
  if (settled) {
    tell(flight, resumes ? "vm_resumed" : "copy_discarded",
         resumes ? flight.order.name + " was resumed on " + host
                 : "the paused copy of " + flight.order.name + " on " + host + " was discarded");
  }
  // Either way the next look at the hosts says what came of it.
  return Turn::look();
}

Executor::Turn Executor::stayed(Flight& flight) {
  const MoveOrder& order = flight.order;
  const std::string goes_on =
      order.name + (order.paused ? " stays paused on " : " goes on running on ") + order.source;
  if (!flight.failure.empty()) return Turn::failed(goes_on + ": " + flight.failure);
  if (flight.attempts >= options_.attempts_max) {
    return Turn::failed(goes_on + ": " + std::to_string(flight.attempts) +
                        " attempts were cut short");
  }
  tell(flight, "move_retried", goes_on + "; the move is tried again");
  return Turn::retry();
}

Result<Executor::Turn> Executor::run_out_of_patience(const Flight& flight, const Sight& sight) {
  const MoveOrder& order = flight.order;
  const std::string seen =
      describe(order.source, sight.source) + ", " + describe(order.target, sight.target);
  if (sight.goes_on) {
    return fail(Errc::kUnavailable, "the migration of " + order.name + " does not end");
  }
  switch (settle(sight.source, sight.target, order.paused)) {
    case Settling::kAskAgain:
      return fail(Errc::kUnavailable,
                  "the move of " + order.name + " cannot be settled yet: " + seen);
    case Settling::kStayedAsk:
      return Turn::failed(order.name + " goes on running on " + order.source + "; " + order.target +
                          " could not be asked whether a paused copy is left there");
    default:
      return Turn::failed("the move of " + order.name + " could not be settled (" + seen +
                          "); keep one copy by hand");
  }
}

// Cancelled in the middle of a move: that it failed is what was asked for.
Result<PlanState> Executor::end_plan(const PlanRecord& plan) {
  const auto in = [&](MoveState state) {
    return std::find_if(plan.moves.begin(), plan.moves.end(),
                        [&](const MoveRecord& record) { return record.state == state; });
  };
  const auto failed = in(MoveState::kFailed);
  const bool is_whole = failed == plan.moves.end() && in(MoveState::kPlanned) == plan.moves.end();
  const PlanState state = is_whole                ? PlanState::kDone
                          : plan.cancel_requested ? PlanState::kCancelled
                                                  : PlanState::kFailed;
  std::string why_skipped = "the plan was cancelled";
  if (failed != plan.moves.end()) {
    why_skipped = failed->move.name + " could not be moved, so the plan ended";
  }
  {
    const MutexLock lock(ledger_mutex_);
    TRY(journal_.finish(plan.id, state, why_skipped));
  }
  const std::string word(to_string(state));
  tell({.kind = "plan_" + word,
        .text = "plan " + std::to_string(plan.id.value) + " ended: " + word,
        .plan = plan.id});
  return state;
}

void Executor::tell(const Flight& flight, std::string kind, std::string text) {
  tell({.kind = std::move(kind),
        .text = std::move(text),
        .plan = flight.plan,
        .vm = flight.order.name,
        .host = flight.order.source});
}

// Events are for people: one that cannot be stored never holds up a migration.
void Executor::tell(Event event) {
  const auto stored = [&] {
    const MutexLock lock(ledger_mutex_);
    return events_.append(std::move(event));
  }();
  if (!stored) {
    log_warning("event lost reason={}", stored.error().message());
    return;
  }
  if (options_.on_event) options_.on_event(*stored);
}

}  // namespace samepage::placer
