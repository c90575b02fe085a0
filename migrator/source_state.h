#pragma once

#include <cstdint>
#include <optional>
#include <string_view>
#include <variant>

#include "core/result.h"

namespace samepage::migrator {

// A state machine of a migration as a value. What must never happen (a guest on both hosts, a guest
// on none) is decided here; see "Never twice" in docs/design-notes.md. SourceMigration does what a
// phase asks for and reports what became of it as the next event.

/// Where the guest runs, or would run if its owner had not paused it.
enum class Side : std::uint8_t { kUnknown, kSource, kTarget };

/// What the source knows after libvirt gave up a migration.
enum class Owner : std::uint8_t {
  kSource,  ///< The source's libvirt has the guest and will keep it.
  kLetGo,   ///< The source's libvirt has the guest no more, or will only kill it.
  kUnclear,
};

enum class SourcePhase : std::uint8_t {
  kConnecting,
  kCopying,
  kStopping,
  kWithdrawing,
  kPulling,
  kReleasing,
  kEnded,
};

namespace source {

struct Connecting {};

/// libvirt migrates; the guest is the source's.
struct Copying {};

/// libvirt was asked to give up and has not answered; it may still be too late.
struct Stopping {
  Error why;
};

/// libvirt gave up; whose the guest is must be found out.
struct Withdrawing {
  Error why;
};

/// Post-copy: the guest is the target's, which pulls the rest of its memory. Nothing can be taken
/// back any more.
struct Pulling {};

/// The source's libvirt has let go of the guest. From here on the target is told to run it, and
/// never to discard it.
struct Releasing {};

struct Ended {
  Side runs_on = Side::kUnknown;
  std::optional<Error> error;
};

using State = std::variant<Connecting, Copying, Stopping, Withdrawing, Pulling, Releasing, Ended>;

/// The target's agent answered; it is ready.
struct Connected {};

/// The owner or the deadline wants the migration to end, or the relay failed.
struct StopAsked {
  Error why;
};

/// The connection to the target's agent broke, or an answer did not come in time.
struct TargetLost {
  Error why;
};

/// The target's agent says that it cannot go on, or cannot run the guest.
struct TargetRefused {
  Error why;
};

/// The source's QEMU has switched to post-copy.
struct SwitchedToPostcopy {};

/// The source's libvirt has taken the successful answer to Finish.
struct FinishHanded {};

struct MigrateReturned {
  std::optional<Error> error;
};

struct OwnerFound {
  Owner owner = Owner::kUnclear;
};

/// The target's agent says that it let the guest run.
struct TargetResumed {};

/// This agent leaves now.
struct Abandoned {};

using Event = std::variant<Connected, StopAsked, TargetLost, TargetRefused, SwitchedToPostcopy,
                           FinishHanded, MigrateReturned, OwnerFound, TargetResumed, Abandoned>;

/// The phase after `event`. kInvalid: the event makes no sense in this phase; the state stays.
Result<State> step(const State& state, const Event& event);

SourcePhase phase(const State& state);

}  // namespace source

std::string_view to_string(SourcePhase phase);

}  // namespace samepage::migrator
