#pragma once

#include <chrono>
#include <compare>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "core/clock.h"
#include "core/database.h"
#include "core/result.h"
#include "placer/carrier.h"
#include "placer/plan.h"

namespace samepage::placer {

struct PlanId {
  std::int64_t value = 0;

  friend auto operator<=>(const PlanId&, const PlanId&) = default;
};

enum class PlanState : std::uint8_t { kProposed, kRunning, kDone, kFailed, kCancelled };
enum class MoveState : std::uint8_t { kPlanned, kRunning, kDone, kFailed, kSkipped };

std::string_view to_string(PlanState state);  ///< "proposed", ... as in docs/api.md
std::string_view to_string(MoveState state);  ///< "planned", ... as in docs/api.md

struct MoveRecord {
  PlannedMove move;
  MoveState state = MoveState::kPlanned;
  std::string error;    ///< Why it failed or was skipped; else empty.
  std::string session;  ///< Of the last attempt; empty before the first.
  int attempts = 0;
  std::optional<MoveFigures> figures;  ///< Of the last attempt, when it ended and was seen to.
};

/// Shared pages that the hosts counted before and after a plan, beside the predicted ones.
struct AchievedSharing {
  std::uint64_t before_pages = 0;
  std::uint64_t after_pages = 0;
};

struct PlanRecord {
  PlanId id;
  PlanState state = PlanState::kProposed;
  bool cancel_requested = false;
  std::chrono::system_clock::time_point created_at;
  std::optional<std::chrono::system_clock::time_point> ended_at;
  std::string summary;
  std::uint64_t shared_before_pages = 0;
  std::uint64_t shared_after_pages = 0;
  std::optional<AchievedSharing> achieved;
  PlanKind kind = PlanKind::kAsked;
  Goal goal = Goal::kSharing;
  Weights weights;
  std::uint64_t hosts_before = 0;  ///< These as in Plan.
  std::uint64_t hosts_after = 0;
  std::uint64_t hosts_bound = 0;
  std::uint64_t hosts_packed = 0;
  std::vector<std::string> freed_hosts;
  std::vector<std::string> notes;
  std::vector<MoveRecord> moves;
  std::vector<Stay> stays;
};

/// Plans and what became of them: the truth about moves in flight.
///
/// Invariant: at most one plan runs, and of each VM at most one move; a move is written as running,
/// with its session, before any agent is asked, and its end before another of that VM starts. The
/// file enforces the first half, whichever process or thread writes.
/// Threads: its database's: a thread that needs the journal opens a connection and a Journal of its
/// own. Lifetime: borrows the database, whose schema is up to date, and the clock.
/// Errors of every method: kUnavailable, kCorrupt, kIo: as Statement's; nothing was changed.
class Journal {
 public:
  struct Options {
    std::size_t plans_max = 1'000;  ///< The oldest plans that do not run are dropped beyond this.
  };

  Journal(const Options& options, Database& database, const Clock& clock)
      : options_(options), database_(database), clock_(clock) {}

  /// Stores a plan as proposed.
  Result<PlanId> propose(const Plan& plan);

  /// kNotFound: no such plan, or dropped long ago.
  Result<PlanRecord> plan(PlanId id);

  /// The newest `count` plans, newest first.
  Result<std::vector<PlanId>> newest(std::size_t count);

  /// The plan that runs, if any: after a restart, the one to carry on with.
  Result<std::optional<PlanId>> running();

  /// From proposed to running. kNotFound: no such plan. kInvalid: it has been started before, or
  /// another one runs (the message names it).
  Result<void> begin(PlanId id);

  /// Has the plan stop after its running move; a proposed plan ends at once. kNotFound: no such
  /// plan. kInvalid: it has ended.
  Result<void> request_cancel(PlanId id);

  /// Writes that a move runs under this session: for the first time, or again after an attempt
  /// that is known to have left the VM on its source. kInvalid: the plan does not run, the move has
  /// ended, or another move of the VM runs.
  Result<void> move_started(PlanId id, std::size_t position, const std::string& session);

  /// Writes the end of the running move. `state` is kDone or kFailed; `error` says why it failed.
  struct MoveEnd {
    MoveState state = MoveState::kFailed;
    std::string error;
    std::optional<MoveFigures> figures;
  };
  /// kInvalid: the move does not run.
  Result<void> move_ended(PlanId id, std::size_t position, const MoveEnd& end);

  /// Ends the running plan; moves not yet started become skipped, with `why_skipped`.
  /// kInvalid: the plan does not run, or one of its moves still does.
  Result<void> finish(PlanId id, PlanState state, const std::string& why_skipped);

  /// Keeps what was counted beside what was predicted. kNotFound: no such plan.
  Result<void> record_achieved(PlanId id, const AchievedSharing& achieved);

 private:
  Result<void> insert_moves(PlanId id, const Plan& plan);
  Result<void> insert_stays(PlanId id, const Plan& plan);
  Result<void> drop_old_plans();
  Result<std::vector<MoveRecord>> moves(PlanId id);
  Result<std::vector<Stay>> stays(PlanId id);
  Result<PlanState> state(PlanId id);
  std::int64_t today() const;

  Options options_;
  Database& database_;
  const Clock& clock_;
};

}  // namespace samepage::placer
