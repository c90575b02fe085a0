#include "placer/settlement.h"

namespace samepage::placer {
namespace {

Step settle_running_source(std::optional<Presence> target) {
  if (!target) return Step::kStayedAsk;
  switch (*target) {
    case Presence::kAbsent:
      return Step::kStayed;
    case Presence::kPaused:
      return Step::kDiscardTarget;
    case Presence::kRunning:
      return Step::kTwice;
    case Presence::kOther:
      return Step::kLookAgain;
  }
  return Step::kLookAgain;
}

// Two paused copies are left alone: libvirt on the source may know that the target's copy is the
// good one and be about to end its own, and then discarding the target's would lose the VM.
Step settle_paused_source(std::optional<Presence> target) {
  if (!target) return Step::kAskAgain;
  switch (*target) {
    case Presence::kAbsent:
      return Step::kResumeSource;
    case Presence::kPaused:
      return Step::kLookAgain;
    case Presence::kRunning:
      return Step::kDiscardSource;
    case Presence::kOther:
      return Step::kLookAgain;
  }
  return Step::kLookAgain;
}

Step settle_absent_source(std::optional<Presence> target) {
  if (!target) return Step::kAskAgain;
  switch (*target) {
    case Presence::kAbsent:
      return Step::kGone;
    case Presence::kPaused:
      return Step::kResumeTarget;
    case Presence::kRunning:
      return Step::kDone;
    case Presence::kOther:
      return Step::kLookAgain;
  }
  return Step::kLookAgain;
}

}  // namespace

Step settle(std::optional<Presence> source, std::optional<Presence> target, bool paused_by_owner) {
  if (paused_by_owner && source == Presence::kPaused && target == Presence::kAbsent) {
    return Step::kStayed;
  }
  if (paused_by_owner && source == Presence::kAbsent && target == Presence::kPaused) {
    return Step::kDone;
  }
  if (!source) return Step::kAskAgain;
  switch (*source) {
    case Presence::kRunning:
      return settle_running_source(target);
    case Presence::kPaused:
      return settle_paused_source(target);
    case Presence::kAbsent:
      return settle_absent_source(target);
    case Presence::kOther:
      return target ? Step::kLookAgain : Step::kAskAgain;
  }
  return Step::kLookAgain;
}

}  // namespace samepage::placer
