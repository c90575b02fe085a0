#include "migrator/target_state.h"

#include <array>
#include <string>
#include <utility>

namespace samepage::migrator {
namespace target {
namespace {

constexpr std::array<std::string_view, std::variant_size_v<Event>> kEventNames{
    "source connected", "stream delivered", "relay failed", "release asked", "abort asked",
    "source lost",      "timed out",        "settled",      "done",          "abandoned",
    "superseded"};

Result<State> obey(const Settled& event) {
  if (event.verdict == Verdict::kResume) return Resuming{.resume = true};
  return Discarding{};
}

// One overload for each pair of a phase and an event that the phase allows; all others are refused.
template <class Phase, class Happened>
Result<State> on(const Phase& /*phase*/, const Happened& /*event*/) {
  return fail(Errc::kInvalid, "out of turn");
}

Result<State> on(const Waiting&, const SourceConnected&) {
  return Receiving{};
}
Result<State> on(const Waiting&, const SourceLost& event) {
  return Ended{Copy::kNone, event.why};
}
Result<State> on(const Waiting&, const TimedOut& event) {
  return Ended{Copy::kNone, event.why};
}
Result<State> on(const Waiting&, const Settled& event) {
  return obey(event);
}
Result<State> on(const Waiting&, const Superseded&) {
  return Ended{Copy::kNone, Error(Errc::kUnavailable, "another session took its place")};
}

Result<State> on(const Receiving&, const StreamDelivered&) {
  return Receiving{.delivered = true};
}
Result<State> on(const Receiving& phase, const RelayFailed&) {
  return phase;
}
Result<State> on(const Receiving& phase, const ReleaseAsked& event) {
  if (phase.delivered) return Resuming{event.resume};
  return Released{event.resume};
}
Result<State> on(const Receiving&, const AbortAsked&) {
  return Discarding{};
}
Result<State> on(const Receiving&, const SourceLost& event) {
  return Ended{Copy::kInDoubt, event.why};
}
Result<State> on(const Receiving&, const TimedOut& event) {
  return Ended{Copy::kInDoubt, event.why};
}
Result<State> on(const Receiving&, const Settled& event) {
  return obey(event);
}

Result<State> on(const Released& phase, const StreamDelivered&) {
  return Resuming{phase.resume};
}
Result<State> on(const Released&, const RelayFailed& event) {
  return Ended{Copy::kInDoubt, event.why};
}
// The release stands: the source let go before it was lost.
Result<State> on(const Released& phase, const SourceLost&) {
  return phase;
}
Result<State> on(const Released&, const TimedOut& event) {
  return Ended{Copy::kInDoubt, event.why};
}
// The source has let go: a discard now would lose the guest.
Result<State> on(const Released&, const Settled& event) {
  if (event.verdict == Verdict::kDiscard) return fail(Errc::kInvalid, "the source has let go");
  return obey(event);
}

Result<State> on(const Resuming& phase, const StreamDelivered&) {
  return phase;
}
Result<State> on(const Resuming& phase, const RelayFailed&) {
  return phase;
}
Result<State> on(const Resuming& phase, const SourceLost&) {
  return phase;
}
Result<State> on(const Resuming& phase, const TimedOut&) {
  return phase;
}
Result<State> on(const Resuming& phase, const Done& event) {
  if (event.error) return Ended{Copy::kInDoubt, event.error};
  return Ended{phase.resume ? Copy::kRunning : Copy::kPausedByOwner, {}};
}

Result<State> on(const Discarding& phase, const StreamDelivered&) {
  return phase;
}
Result<State> on(const Discarding& phase, const RelayFailed&) {
  return phase;
}
Result<State> on(const Discarding& phase, const SourceLost&) {
  return phase;
}
Result<State> on(const Discarding& phase, const TimedOut&) {
  return phase;
}
Result<State> on(const Discarding&, const Done& event) {
  if (event.error) return Ended{Copy::kInDoubt, event.error};
  return Ended{Copy::kNone, Error(Errc::kUnavailable, "the source kept the guest")};
}

// What was under way when it ended arrives late and changes nothing.
template <class Happened>
Result<State> on(const Ended& phase, const Happened& /*event*/) {
  return phase;
}

}  // namespace

Result<State> step(const State& state, const Event& event) {
  if (std::holds_alternative<Abandoned>(event) && !std::holds_alternative<Ended>(state)) {
    return Ended{Copy::kInDoubt, Error(Errc::kUnavailable, "the agent left")};
  }
  auto next = std::visit([](const auto& in, const auto& happened) { return on(in, happened); },
                         state, event);
  if (next) return next;
  return fail(next.error().code(), std::string(kEventNames[event.index()]) + " while " +
                                       std::string(to_string(phase(state))) + ": " +
                                       next.error().message());
}

TargetPhase phase(const State& state) {
  return static_cast<TargetPhase>(state.index());
}

}  // namespace target

std::string_view to_string(TargetPhase phase) {
  switch (phase) {
    case TargetPhase::kWaiting:
      return "waiting";
    case TargetPhase::kReceiving:
      return "receiving";
    case TargetPhase::kReleased:
      return "released";
    case TargetPhase::kResuming:
      return "resuming";
    case TargetPhase::kDiscarding:
      return "discarding";
    case TargetPhase::kEnded:
      return "ended";
  }
  return "unknown";
}

}  // namespace samepage::migrator
