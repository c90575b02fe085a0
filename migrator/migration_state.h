#pragma once

#include <cstdint>
#include <optional>
#include <string_view>
#include <variant>

#include "core/result.h"

namespace samepage::migrator {

// The two state machines of a migration, as values. What must never happen (a guest on both hosts,
// a guest on none) is decided here and nowhere else; see "Never twice" in docs/design-notes.md.
// SourceMigration and TargetMigration do what a phase asks for and report what became of it.

/// Where the guest runs, or would run if its owner had not paused it.
enum class Side : std::uint8_t { kUnknown, kSource, kTarget };

/// What the source knows after libvirt gave up a migration.
enum class Owner : std::uint8_t {
  kSource,  ///< The source's libvirt has the guest and will keep it.
  kLetGo,   ///< The source's libvirt has the guest no more, or will only kill it.
  kUnclear,
};

// The source's phases.

enum class SourcePhase : std::uint8_t {
  kConnecting,
  kCopying,
  kStopping,
  kWithdrawing,
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

/// The source's libvirt has let go of the guest. From here on the target is told to run it, and
/// never to discard it.
struct Releasing {};

struct Ended {
  Side runs_on = Side::kUnknown;
  std::optional<Error> error;
};

using State = std::variant<Connecting, Copying, Stopping, Withdrawing, Releasing, Ended>;

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

using Event = std::variant<Connected, StopAsked, TargetLost, TargetRefused, FinishHanded,
                           MigrateReturned, OwnerFound, TargetResumed, Abandoned>;

/// The phase after `event`. kInvalid: the event makes no sense in this phase; the state stays.
Result<State> step(const State& state, const Event& event);

SourcePhase phase(const State& state);

}  // namespace source

std::string_view to_string(SourcePhase phase);

// The target's phases.

enum class TargetPhase : std::uint8_t {
  kWaiting,
  kReceiving,
  kReleased,
  kResuming,
  kDiscarding,
  kEnded,
};

/// What a session leaves on the target.
enum class Copy : std::uint8_t {
  kNone,
  kRunning,
  kPausedByOwner,  ///< Released, and left as its owner had it.
  kInDoubt,        ///< Perhaps a paused copy, perhaps none; nobody may resume it unasked.
};

/// The placer's word on a paused copy, after asking both hosts.
enum class Verdict : std::uint8_t {
  kResume,   ///< The source has let go of the guest.
  kDiscard,  ///< The source has it.
};

namespace target {

/// For the source's agent.
struct Waiting {};

struct Receiving {
  bool delivered = false;
};

/// The source has let go, and the stream's end is still on its way to QEMU.
struct Released {
  bool resume = true;
};

struct Resuming {
  bool resume = true;  ///< False: its owner had paused the guest; it stays so.
};

struct Discarding {};

struct Ended {
  Copy copy = Copy::kInDoubt;
  std::optional<Error> error;
};

using State = std::variant<Waiting, Receiving, Released, Resuming, Discarding, Ended>;

struct SourceConnected {};
struct StreamDelivered {};

struct RelayFailed {
  Error why;
};

struct ReleaseAsked {
  bool resume = true;
};

/// The source keeps the guest.
struct AbortAsked {
  Error why;
};

/// The connection to the source's agent broke, or something did not come in time.
struct SourceLost {
  Error why;
};

struct Settled {
  Verdict verdict = Verdict::kDiscard;
};

/// libvirt resumed or discarded the copy, or refused to.
struct Done {
  std::optional<Error> error;
};

struct Abandoned {};

using Event = std::variant<SourceConnected, StreamDelivered, RelayFailed, ReleaseAsked, AbortAsked,
                           SourceLost, Settled, Done, Abandoned>;

/// The phase after `event`. kInvalid: the event makes no sense in this phase; the state stays.
Result<State> step(const State& state, const Event& event);

TargetPhase phase(const State& state);

}  // namespace target

std::string_view to_string(TargetPhase phase);

}  // namespace samepage::migrator
