#include "placer/settlement.h"

namespace samepage::placer {
namespace {

Settling settle_running_source(std::optional<Presence> target) {
  if (!target) return Settling::kStayedAsk;
  switch (*target) {
    case Presence::kAbsent:
      return Settling::kStayed;
    case Presence::kPaused:
      return Settling::kDiscardTarget;
    case Presence::kRunning:
      return Settling::kTwice;
    case Presence::kOther:
      return Settling::kLookAgain;
  }
  return Settling::kLookAgain;
}

// Two paused copies are left alone: libvirt on the source may know that the target's copy is the
// good one and be about to end its own, and then discarding the target's would lose the VM.
Settling settle_paused_source(std::optional<Presence> target) {
  if (!target) return Settling::kAskAgain;
  switch (*target) {
    case Presence::kAbsent:
      return Settling::kResumeSource;
    case Presence::kPaused:
      return Settling::kLookAgain;
    case Presence::kRunning:
      return Settling::kDiscardSource;
    case Presence::kOther:
      return Settling::kLookAgain;
  }
  return Settling::kLookAgain;
}

Settling settle_absent_source(std::optional<Presence> target) {
  if (!target) return Settling::kAskAgain;
  switch (*target) {
    case Presence::kAbsent:
      return Settling::kGone;
    case Presence::kPaused:
      return Settling::kResumeTarget;
    case Presence::kRunning:
      return Settling::kDone;
    case Presence::kOther:
      return Settling::kLookAgain;
  }
  return Settling::kLookAgain;
}

}  // namespace

Settling settle(std::optional<Presence> source, std::optional<Presence> target,
                bool paused_by_owner) {
  if (paused_by_owner && source == Presence::kPaused && target == Presence::kAbsent) {
    return Settling::kStayed;
  }
  if (paused_by_owner && source == Presence::kAbsent && target == Presence::kPaused) {
    return Settling::kDone;
  }
  if (!source) return Settling::kAskAgain;
  switch (*source) {
    case Presence::kRunning:
      return settle_running_source(target);
    case Presence::kPaused:
      return settle_paused_source(target);
    case Presence::kAbsent:
      return settle_absent_source(target);
    case Presence::kOther:
      return target ? Settling::kLookAgain : Settling::kAskAgain;
  }
  return Settling::kLookAgain;
}

}  // namespace samepage::placer
