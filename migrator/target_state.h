#pragma once

#include <cstdint>
#include <optional>
#include <string_view>
#include <variant>

#include "core/result.h"

namespace samepage::migrator {

// A state machine of a migration as a value. What must never happen (a guest on both hosts, a guest
// on none) is decided here; see "Never twice" in docs/design-notes.md. TargetMigration does what a
// phase asks for and reports what became of it as the next event.

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

/// The connection to the source's agent broke.
struct SourceLost {
  Error why;
};

/// Something did not come in time.
struct TimedOut {
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

/// Another session for the same VM takes the place of one that nobody came to.
struct Superseded {};

using Event = std::variant<SourceConnected, StreamDelivered, RelayFailed, ReleaseAsked, AbortAsked,
                           SourceLost, TimedOut, Settled, Done, Abandoned, Superseded>;

/// The phase after `event`. kInvalid: the event makes no sense in this phase; the state stays.
Result<State> step(const State& state, const Event& event);

TargetPhase phase(const State& state);

}  // namespace target

std::string_view to_string(TargetPhase phase);

}  // namespace samepage::migrator
