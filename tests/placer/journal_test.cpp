// The promise under test: the journal never says anything but the truth about moves in flight: one
// plan and one move of a VM at a time, whichever connection writes, and a reopened file says the
// same.

#include "placer/journal.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "placer/event_log.h"
#include "placer/schema.h"
#include "tests/core/temporary_folder.h"
#include "tests/fakes/fake_clock.h"

namespace samepage::placer {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

Plan two_moves() {
  Plan plan;
  for (const char* name : {"web1", "web2"}) {
    plan.moves.push_back({.vm = VmId{std::string("uuid-") + name},
                          .name = name,
                          .sharing_domain = "default",
                          .source = "host1",
                          .target = "host2",
                          .reason = "shares",
                          .cause = "goal",
                          .gain_pages = -5,
                          .cost_pages = 7});
  }
  plan.stays.push_back({.vm = VmId{"uuid-db"},
                        .name = "db",
                        .host = "host1",
                        .reason = "costs too much",
                        .cause = "too_dear",
                        .best_host = "host2",
                        .gain_pages = 9});
  plan.hosts_packed = 2;
  plan.shared_before_pages = 100;
  plan.shared_after_pages = 200;
  plan.summary = "2 moves";
  return plan;
}

class JournalTest : public ::testing::Test {
 protected:
  Database open() {
    Result<Database> database =
        Database::open({.path = folder_.file("placer.db"), .synchronous_full = false});
    EXPECT_TRUE(database);
    EXPECT_TRUE(migrate_schema(*database));
    return *std::move(database);
  }

  template <class T>
  static std::string refusal(const Result<T>& result, Errc code = Errc::kInvalid) {
    if (result) return "accepted";
    EXPECT_EQ(result.error().code(), code);
    return result.error().message();
  }

  PlanId begun() {
    const PlanId id = *journal_.propose(two_moves());
    EXPECT_TRUE(journal_.begin(id));
    return id;
  }

  TemporaryFolder folder_;
  fakes::FakeClock clock_;
  Database database_ = open();
  Journal journal_{{.plans_max = 3}, database_, clock_};
};

TEST_F(JournalTest, KeepsAPlanAsItWasProposed) {
  const PlanId id = *journal_.propose(two_moves());

  Database reopened = open();
  const Result<PlanRecord> plan = Journal({}, reopened, clock_).plan(id);

  ASSERT_TRUE(plan);
  EXPECT_EQ(plan->state, PlanState::kProposed);
  EXPECT_EQ(plan->created_at, clock_.today());
  EXPECT_EQ(plan->summary, "2 moves");
  EXPECT_EQ(plan->shared_before_pages, 100U);
  EXPECT_EQ(plan->shared_after_pages, 200U);
  ASSERT_EQ(plan->moves.size(), 2U);
  EXPECT_EQ(plan->moves[1].move.name, "web2");
  EXPECT_EQ(plan->moves[1].move.gain_pages, -5);
  EXPECT_EQ(plan->moves[1].move.cause, "goal");
  EXPECT_EQ(plan->moves[1].state, MoveState::kPlanned);
  ASSERT_EQ(plan->stays.size(), 1U);
  EXPECT_EQ(plan->stays[0].reason, "costs too much");
  EXPECT_EQ(plan->stays[0].cause, "too_dear");
  EXPECT_EQ(plan->stays[0].best_host, "host2");
  EXPECT_EQ(plan->stays[0].gain_pages, 9);
  EXPECT_EQ(plan->hosts_packed, 2U);
  EXPECT_EQ(refusal(journal_.plan(PlanId{99}), Errc::kNotFound),
            "no plan 99; `samepage plan` makes one");
}

TEST_F(JournalTest, RunsOnePlanAtATime) {
  const PlanId first = begun();
  const PlanId second = *journal_.propose(two_moves());

  EXPECT_THAT(refusal(journal_.begin(second)), HasSubstr("plan 1 is running"));
  EXPECT_THAT(refusal(journal_.begin(first)), HasSubstr("plan 1 is running; only a proposed"));
  EXPECT_EQ(*journal_.running(), first);
  ASSERT_TRUE(journal_.finish(first, PlanState::kDone, ""));
  EXPECT_EQ(*journal_.running(), std::nullopt);
  EXPECT_TRUE(journal_.begin(second));
  EXPECT_THAT(refusal(journal_.begin(PlanId{99}), Errc::kNotFound), HasSubstr("no plan 99"));
}

TEST_F(JournalTest, RunsOneMoveOfAVmAtATimeAndKeepsItsSession) {
  Plan back_and_forth = two_moves();
  back_and_forth.moves[1].vm = back_and_forth.moves[0].vm;
  const PlanId id = *journal_.propose(back_and_forth);
  ASSERT_TRUE(journal_.begin(id));

  ASSERT_TRUE(journal_.move_started(id, 0, "s1"));
  EXPECT_THAT(refusal(journal_.move_started(id, 1, "s2")), HasSubstr("cannot be started now"));
  ASSERT_TRUE(journal_.move_started(id, 0, "s3"));
  const PlanRecord plan = *journal_.plan(id);
  EXPECT_EQ(plan.moves[0].state, MoveState::kRunning);
  EXPECT_EQ(plan.moves[0].session, "s3");
  EXPECT_EQ(plan.moves[0].attempts, 2);
  EXPECT_THAT(refusal(journal_.finish(id, PlanState::kDone, "")), HasSubstr("still does"));

  ASSERT_TRUE(journal_.move_ended(id, 0,
                                  {.state = MoveState::kDone,
                                   .error = {},
                                   .figures = MoveFigures{.wire_bytes = 11, .total_us = 9}}));
  EXPECT_THAT(refusal(journal_.move_ended(id, 0, {})), HasSubstr("does not run"));
  EXPECT_THAT(refusal(journal_.move_started(id, 0, "s4")), HasSubstr("cannot be started"));
  EXPECT_EQ(journal_.plan(id)->moves[0].figures->wire_bytes, 11U);
}

TEST_F(JournalTest, SkipsWhatAFailedPlanNeverStarted) {
  const PlanId id = begun();
  ASSERT_TRUE(journal_.move_started(id, 0, "s1"));
  ASSERT_TRUE(journal_.move_ended(
      id, 0, {.state = MoveState::kFailed, .error = "link lost", .figures = {}}));

  ASSERT_TRUE(journal_.finish(id, PlanState::kFailed, "web1 could not be moved"));

  const PlanRecord plan = *journal_.plan(id);
  EXPECT_EQ(plan.state, PlanState::kFailed);
  EXPECT_EQ(plan.moves[0].error, "link lost");
  EXPECT_EQ(plan.moves[1].state, MoveState::kSkipped);
  EXPECT_EQ(plan.moves[1].error, "web1 could not be moved");
  EXPECT_TRUE(plan.ended_at);
}

TEST_F(JournalTest, RefusesToStartMovesOfAPlanThatDoesNotRun) {
  const PlanId id = *journal_.propose(two_moves());
  EXPECT_THAT(refusal(journal_.move_started(id, 0, "s")), HasSubstr("cannot be started"));
  EXPECT_THAT(refusal(journal_.finish(id, PlanState::kDone, "")), HasSubstr("does not run"));
}

TEST_F(JournalTest, CancelsAProposedPlanAtOnceAndARunningOneByRequest) {
  const PlanId proposed = *journal_.propose(two_moves());
  ASSERT_TRUE(journal_.request_cancel(proposed));
  EXPECT_EQ(journal_.plan(proposed)->state, PlanState::kCancelled);
  EXPECT_EQ(journal_.plan(proposed)->moves[0].state, MoveState::kSkipped);
  EXPECT_THAT(refusal(journal_.request_cancel(proposed)), HasSubstr("has ended"));
  EXPECT_THAT(refusal(journal_.request_cancel(PlanId{99}), Errc::kNotFound), HasSubstr("no plan"));

  const PlanId running = begun();
  ASSERT_TRUE(journal_.request_cancel(running));
  EXPECT_EQ(journal_.plan(running)->state, PlanState::kRunning);
  EXPECT_TRUE(journal_.plan(running)->cancel_requested);
}

TEST_F(JournalTest, DropsTheOldestPlansButNeverTheRunningOne) {
  const PlanId running = begun();
  for (int i = 0; i < 5; ++i) ASSERT_TRUE(journal_.propose(two_moves()));

  EXPECT_EQ(*journal_.newest(10), (std::vector<PlanId>{{6}, {5}, {4}, running}));
  EXPECT_EQ(journal_.plan(PlanId{2}).error().code(), Errc::kNotFound);
}

TEST_F(JournalTest, KeepsWhatWasAchievedBesideWhatWasPredicted) {
  const PlanId id = begun();
  ASSERT_TRUE(journal_.record_achieved(id, {.before_pages = 90, .after_pages = 180}));
  EXPECT_EQ(journal_.plan(id)->achieved->after_pages, 180U);
  EXPECT_EQ(journal_.record_achieved(PlanId{99}, {}).error().code(), Errc::kNotFound);
}

TEST_F(JournalTest, SaysUnavailableWhileAnotherConnectionWrites) {
  Database other = *Database::open(
      {.path = folder_.file("placer.db"), .busy_timeout = std::chrono::milliseconds(0)});
  Journal blocked({}, other, clock_);
  const Transaction held = *database_.begin();
  EXPECT_EQ(blocked.propose(two_moves()).error().code(), Errc::kUnavailable);
}

TEST_F(JournalTest, SaysCorruptWhenAStateIsUnknown) {
  const PlanId id = begun();
  ASSERT_TRUE(
      database_.execute("PRAGMA ignore_check_constraints = 1; UPDATE plans SET state = 'lost'"));
  EXPECT_EQ(journal_.plan(id).error().code(), Errc::kCorrupt);
}

TEST_F(JournalTest, EventsRiseAndTheOldestAreDropped) {
  EventLog log({.events_max = 3}, database_, clock_);
  for (int i = 1; i <= 5; ++i) {
    Event event{.kind = "tick", .text = "tick " + std::to_string(i)};
    if (i == 4) event.plan = PlanId{7};
    if (i == 5) event.progress = MoveProgress{.phase = "ram", .wire_bytes = 12};
    const Result<Event> stored = log.append(event);
    ASSERT_TRUE(stored);
    EXPECT_EQ(stored->id, i);
  }

  const std::vector<Event> all = *log.since(0, std::nullopt, 10);
  ASSERT_EQ(all.size(), 3U);
  EXPECT_EQ(all[0].text, "tick 3");
  EXPECT_EQ(all[0].at, clock_.today());
  EXPECT_EQ(all[2].progress->phase, "ram");
  EXPECT_EQ(all[2].progress->wire_bytes, 12U);
  EXPECT_FALSE(all[1].progress);
  EXPECT_EQ(log.since(3, std::nullopt, 1)->size(), 1U);
  ASSERT_EQ(log.since(0, PlanId{7}, 10)->size(), 1U);
  EXPECT_EQ(log.since(0, PlanId{7}, 10)->front().text, "tick 4");
}

}  // namespace
}  // namespace samepage::placer
