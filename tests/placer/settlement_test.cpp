// The promise under test: for every combination of what two hosts say of a VM, the one step that is
// safe. The table is the whole input space; the invariants are checked on it once more by rule.

#include "placer/settlement.h"

#include <array>
#include <utility>

#include <gtest/gtest.h>

namespace samepage::placer {
namespace {

using Answer = std::optional<Presence>;

constexpr Answer kNoAnswer = std::nullopt;
constexpr std::array<Answer, 5> kAnswers{kNoAnswer, Presence::kAbsent, Presence::kRunning,
                                         Presence::kPaused, Presence::kOther};

// Rows: the source's answer; columns: the target's; both in the order of kAnswers.
constexpr std::array<std::array<Settling, 5>, 5> kTable{{
    // the source did not answer
    {Settling::kAskAgain, Settling::kAskAgain, Settling::kAskAgain, Settling::kAskAgain,
     Settling::kAskAgain},
    // the source does not have it
    {Settling::kAskAgain, Settling::kGone, Settling::kDone, Settling::kResumeTarget,
     Settling::kLookAgain},
    // the source runs it
    {Settling::kStayedAsk, Settling::kStayed, Settling::kTwice, Settling::kDiscardTarget,
     Settling::kLookAgain},
    // the source has it paused
    {Settling::kAskAgain, Settling::kResumeSource, Settling::kDiscardSource, Settling::kLookAgain,
     Settling::kLookAgain},
    // the source has it in another state
    {Settling::kAskAgain, Settling::kLookAgain, Settling::kLookAgain, Settling::kLookAgain,
     Settling::kLookAgain},
}};

TEST(Settlement, DecidesEveryCombination) {
  for (std::size_t source = 0; source < kAnswers.size(); ++source) {
    for (std::size_t target = 0; target < kAnswers.size(); ++target) {
      EXPECT_EQ(settle(kAnswers.at(source), kAnswers.at(target)), kTable.at(source).at(target))
          << "source " << source << " target " << target;
    }
  }
}

TEST(Settlement, LeavesAnOnlyCopyPausedWhenItsOwnerHadPausedIt) {
  EXPECT_EQ(settle(Presence::kPaused, Presence::kAbsent, true), Settling::kStayed);
  EXPECT_EQ(settle(Presence::kAbsent, Presence::kPaused, true), Settling::kDone);
  EXPECT_EQ(settle(Presence::kPaused, Presence::kPaused, true), Settling::kLookAgain);
  EXPECT_EQ(settle(Presence::kRunning, Presence::kPaused, true), Settling::kDiscardTarget);
  EXPECT_EQ(settle(std::nullopt, Presence::kPaused, true), Settling::kAskAgain);
}

TEST(Settlement, ResumesOnlyTheOnlyCopyAndDiscardsOnlyBesideARunningOne) {
  for (const Answer& source : kAnswers) {
    for (const Answer& target : kAnswers) {
      switch (settle(source, target)) {
        case Settling::kResumeTarget:
          EXPECT_EQ(source, Presence::kAbsent);
          break;
        case Settling::kResumeSource:
          EXPECT_EQ(target, Presence::kAbsent);
          break;
        case Settling::kDiscardTarget:
          EXPECT_EQ(source, Presence::kRunning);
          break;
        case Settling::kDiscardSource:
          EXPECT_EQ(target, Presence::kRunning);
          break;
        default:
          break;
      }
    }
  }
}

}  // namespace
}  // namespace samepage::placer
