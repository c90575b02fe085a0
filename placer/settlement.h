#pragma once

#include <cstdint>
#include <optional>

#include "placer/carrier.h"

namespace samepage::placer {

/// What to do next about a move whose end nobody saw.
enum class Settling : std::uint8_t {
  kAskAgain,       ///< A host that must be asked did not answer; nothing may be done.
  kLookAgain,      ///< Both answered, but the hosts are still at it, or a person must decide.
  kDone,           ///< The target runs it and the source has let go of it.
  kStayed,         ///< The source runs it and the target has nothing of it.
  kStayedAsk,      ///< The source runs it; whether a paused copy is on the target is not known.
  kResumeTarget,   ///< The only copy is paused on the target.
  kResumeSource,   ///< The only copy is paused on the source.
  kDiscardTarget,  ///< The source runs it; the target holds a paused copy.
  kDiscardSource,  ///< The target runs it; the source holds a paused copy.
  kGone,           ///< Neither host has it.
  kTwice,          ///< Both say that they run it.
};

/// Decides from the two hosts' own answers; nullopt means that the host could not be asked. Only
/// for a session that the source, asked before, no longer carries out; the source must have been
/// asked before the target, so that a VM in between the two is never taken for lost.
///
/// Invariant: a copy is resumed only when the other host said that it has none, and discarded only
/// when the other host said that it runs the VM. See "Never twice" in docs/design-notes.md.
/// `paused_by_owner`: the only copy is then left paused, wherever it is.
Settling settle(std::optional<Presence> source, std::optional<Presence> target,
                bool paused_by_owner = false);

}  // namespace samepage::placer
