#include "migrator/source_state.h"

#include <array>
#include <string>
#include <utility>

namespace samepage::migrator {
namespace source {
namespace {

constexpr std::array<std::string_view, std::variant_size_v<Event>> kEventNames{
    "connected",     "stop asked",       "target lost", "target refused", "switched to post-copy",
    "finish handed", "migrate returned", "owner found", "target resumed", "abandoned"};

// One overload for each pair of a phase and an event that the phase allows; all others are refused.
template <class Phase, class Happened>
Result<State> on(const Phase& /*phase*/, const Happened& /*event*/) {
  return fail(Errc::kInvalid, "out of turn");
}

Result<State> on(const Connecting&, const Connected&) {
  return Copying{};
}
Result<State> on(const Connecting&, const StopAsked& event) {
  return Ended{Side::kSource, event.why};
}
Result<State> on(const Connecting&, const TargetLost& event) {
  return Ended{Side::kSource, event.why};
}
Result<State> on(const Connecting&, const TargetRefused& event) {
  return Ended{Side::kSource, event.why};
}

Result<State> on(const Copying&, const StopAsked& event) {
  return Stopping{event.why};
}
Result<State> on(const Copying&, const TargetLost& event) {
  return Stopping{event.why};
}
Result<State> on(const Copying&, const TargetRefused& event) {
  return Stopping{event.why};
}
Result<State> on(const Copying&, const SwitchedToPostcopy&) {
  return Pulling{};
}
Result<State> on(const Copying&, const FinishHanded&) {
  return Releasing{};
}
Result<State> on(const Copying&, const MigrateReturned& event) {
  // The fall-back where libvirt's protocol could not be followed: migrate() itself says it.
  if (!event.error) return Releasing{};
  return Withdrawing{*event.error};
}

// The first reason is the one that its owner wants to read.
Result<State> on(const Stopping& phase, const StopAsked&) {
  return phase;
}
Result<State> on(const Stopping& phase, const TargetLost&) {
  return phase;
}
Result<State> on(const Stopping& phase, const TargetRefused&) {
  return phase;
}
Result<State> on(const Stopping&, const SwitchedToPostcopy&) {
  return Pulling{};
}
Result<State> on(const Stopping&, const FinishHanded&) {
  return Releasing{};
}
Result<State> on(const Stopping& phase, const MigrateReturned& event) {
  if (!event.error) return Releasing{};
  return Withdrawing{
      Error(phase.why.code(), phase.why.message() + "; libvirt: " + event.error->message())};
}

Result<State> on(const Withdrawing& phase, const StopAsked&) {
  return phase;
}
Result<State> on(const Withdrawing& phase, const TargetLost&) {
  return phase;
}
Result<State> on(const Withdrawing& phase, const TargetRefused&) {
  return phase;
}
// libvirt gave up, and yet the guest is not the source's any more.
Result<State> on(const Withdrawing& phase, const SwitchedToPostcopy&) {
  return Ended{Side::kUnknown, phase.why};
}
Result<State> on(const Withdrawing&, const FinishHanded&) {
  return Releasing{};
}
Result<State> on(const Withdrawing& phase, const OwnerFound& event) {
  switch (event.owner) {
    case Owner::kSource:
      return Ended{Side::kSource, phase.why};
    case Owner::kLetGo:
      return Releasing{};
    case Owner::kUnclear:
      return Ended{Side::kUnknown, phase.why};
  }
  return fail(Errc::kInvalid, "no such owner");
}

Result<State> on(const Pulling& phase, const StopAsked&) {
  return phase;
}
Result<State> on(const Pulling& phase, const TargetLost&) {
  return phase;
}
Result<State> on(const Pulling& phase, const TargetRefused&) {
  return phase;
}
Result<State> on(const Pulling& phase, const SwitchedToPostcopy&) {
  return phase;
}
Result<State> on(const Pulling&, const FinishHanded&) {
  return Releasing{};
}
Result<State> on(const Pulling&, const MigrateReturned& event) {
  if (!event.error) return Releasing{};
  return Ended{Side::kUnknown,
               Error(event.error->code(), "post-copy broke off: " + event.error->message())};
}

Result<State> on(const Releasing&, const TargetResumed&) {
  return Ended{Side::kTarget, {}};
}
Result<State> on(const Releasing&, const TargetLost& event) {
  return Ended{Side::kUnknown, event.why};
}
Result<State> on(const Releasing&, const TargetRefused& event) {
  return Ended{Side::kUnknown, event.why};
}
Result<State> on(const Releasing& phase, const StopAsked&) {
  return phase;
}
Result<State> on(const Releasing& phase, const SwitchedToPostcopy&) {
  return phase;
}
Result<State> on(const Releasing& phase, const FinishHanded&) {
  return phase;
}
Result<State> on(const Releasing& phase, const MigrateReturned&) {
  return phase;
}
Result<State> on(const Releasing& phase, const OwnerFound&) {
  return phase;
}

// What was under way when it ended arrives late and changes nothing.
template <class Happened>
Result<State> on(const Ended& phase, const Happened& /*event*/) {
  return phase;
}

}  // namespace

Result<State> step(const State& state, const Event& event) {
  if (std::holds_alternative<Abandoned>(event) && !std::holds_alternative<Ended>(state)) {
    return Ended{Side::kUnknown, Error(Errc::kUnavailable, "the agent left")};
  }
  auto next = std::visit([](const auto& in, const auto& happened) { return on(in, happened); },
                         state, event);
  if (next) return next;
  return fail(next.error().code(), std::string(kEventNames[event.index()]) + " while " +
                                       std::string(to_string(phase(state))) + ": " +
                                       next.error().message());
}

SourcePhase phase(const State& state) {
  return static_cast<SourcePhase>(state.index());
}

}  // namespace source

std::string_view to_string(SourcePhase phase) {
  switch (phase) {
    case SourcePhase::kConnecting:
      return "connecting";
    case SourcePhase::kCopying:
      return "copying";
    case SourcePhase::kStopping:
      return "stopping";
    case SourcePhase::kWithdrawing:
      return "withdrawing";
    case SourcePhase::kPulling:
      return "pulling";
    case SourcePhase::kReleasing:
      return "releasing";
    case SourcePhase::kEnded:
      return "ended";
  }
  return "unknown";
}

}  // namespace samepage::migrator
