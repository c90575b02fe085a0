// The promise under test: a plan is carried out one move at a time, with every step in the journal
// first; a failure ends it and leaves the guest on its source; and from whatever state a killed
// placer left, the next one goes on. Each test arranges one ending in a simulated fleet.

#include "placer/executor.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "placer/schema.h"
#include "tests/core/temporary_folder.h"
#include "tests/fakes/fake_carrier.h"
#include "tests/fakes/fake_clock.h"

namespace samepage::placer {
namespace {

using fakes::Fate;
using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

const VmId kWeb1{"uuid-web1"};
const VmId kWeb2{"uuid-web2"};

class ExecutorTest : public ::testing::Test {
 protected:
  ExecutorTest() {
    EXPECT_TRUE(migrate_schema(database_));
    carrier_.hosts = {{"host1", {{kWeb1, Presence::kRunning}, {kWeb2, Presence::kRunning}}},
                      {"host2", {}}};
    for (const char* host : {"host1", "host2"}) {
      Host up;
      up.name = host;
      up.state = HostState::kUp;
      fleet_.hosts.push_back(up);
    }
    for (const VmId& id : {kWeb1, kWeb2}) {
      Vm vm;
      vm.id = id;
      vm.name = id.uuid.substr(5);
      vm.host = "host1";
      vm.state = VmState::kRunning;
      fleet_.vms.push_back(vm);
      plan_.moves.push_back({.vm = id,
                             .name = vm.name,
                             .sharing_domain = "default",
                             .source = "host1",
                             .target = "host2",
                             .reason = "shares"});
    }
  }

  Executor executor() {
    Executor::Options options;
    options.move_max = std::chrono::minutes(2);
    options.rest = [this](Deadline until, const std::stop_token&) {
      if (on_rest_) on_rest_();
      if (until > clock_.now()) clock_.advance(until - clock_.now());
    };
    options.new_session = [this]() -> Result<std::string> {
      return "session" + std::to_string(++sessions_);
    };
    return {options, journal_, events_, carrier_, clock_};
  }

  PlanId begun() {
    const PlanId id = *journal_.propose(plan_);
    EXPECT_TRUE(executor().begin(id, fleet_));
    return id;
  }

  /// The state in which a placer dies that has just had the first move started.
  PlanId in_flight(Fate fate, bool is_remembered = false) {
    const PlanId id = begun();
    carrier_.fates = {fate};
    if (!is_remembered) carrier_.forgetful = {"host1"};
    std::stop_source stop;
    carrier_.after = [&stop](std::string_view call) {
      if (call == "start") stop.request_stop();
    };
    const Result<PlanState> stopped = executor().carry_out(id, stop.get_token());
    EXPECT_EQ(stopped.error().code(), Errc::kTimedOut);
    carrier_.after = nullptr;
    carrier_.calls.clear();
    EXPECT_EQ(journal_.plan(id)->moves[0].state, MoveState::kRunning);
    return id;
  }

  std::vector<std::string> kinds() {
    std::vector<std::string> kinds;
    const std::vector<Event> events = *events_.since(0, std::nullopt, 1000);
    for (const Event& event : events) {
      if (event.kind != "progress") kinds.push_back(event.kind);
    }
    return kinds;
  }

  void expect_moved() {
    EXPECT_EQ(carrier_.at("host1", kWeb1), Presence::kAbsent);
    EXPECT_EQ(carrier_.at("host2", kWeb1), Presence::kRunning);
    EXPECT_THAT(carrier_.violations, IsEmpty());
  }

  void expect_stayed() {
    EXPECT_EQ(carrier_.at("host1", kWeb1), Presence::kRunning);
    EXPECT_EQ(carrier_.at("host2", kWeb1), Presence::kAbsent);
    EXPECT_THAT(carrier_.violations, IsEmpty());
  }

  TemporaryFolder folder_;
  fakes::FakeClock clock_;
  Database database_ =
      *Database::open({.path = folder_.file("placer.db"), .synchronous_full = false});
  Journal journal_{{}, database_, clock_};
  EventLog events_{{}, database_, clock_};
  fakes::FakeCarrier carrier_{clock_};
  std::function<void()> on_rest_;
  Fleet fleet_;
  Plan plan_;
  int sessions_ = 0;
};

TEST_F(ExecutorTest, CarriesAPlanOutMoveByMove) {
  const PlanId id = begun();

  EXPECT_EQ(executor().carry_out(id, {}), PlanState::kDone);

  expect_moved();
  EXPECT_EQ(carrier_.at("host2", kWeb2), Presence::kRunning);
  const PlanRecord plan = *journal_.plan(id);
  EXPECT_EQ(plan.moves[0].state, MoveState::kDone);
  EXPECT_EQ(plan.moves[0].figures->wire_bytes, 1000U);
  EXPECT_EQ(plan.moves[1].session, "session2");
  EXPECT_THAT(kinds(), ElementsAre("plan_started", "move_started", "move_done", "move_started",
                                   "move_done", "plan_done"));
}

TEST_F(ExecutorTest, WritesTheSessionBeforeAnyAgentIsAsked) {
  const PlanId id = begun();
  std::vector<std::string> sessions;
  carrier_.before = [&](std::string_view) {
    const PlanRecord plan = *journal_.plan(id);
    for (const MoveRecord& move : plan.moves) {
      if (move.state == MoveState::kRunning) sessions.push_back(move.session);
    }
  };

  EXPECT_EQ(executor().carry_out(id, {}), PlanState::kDone);

  EXPECT_EQ(sessions.size(), carrier_.calls.size());
  EXPECT_EQ(sessions.front(), "session1");
}

TEST_F(ExecutorTest, TellsOfProgressNowAndThen) {
  const PlanId id = begun();
  EXPECT_EQ(executor().carry_out(id, {}), PlanState::kDone);

  int told = 0;
  const std::vector<Event> events = *events_.since(0, id, 1000);
  for (const Event& event : events) told += event.progress ? 1 : 0;
  EXPECT_EQ(told, 20);
}

TEST_F(ExecutorTest, StopsAfterAFailureAndSkipsTheRest) {
  const PlanId id = begun();
  carrier_.fates = {Fate::kFails};

  EXPECT_EQ(executor().carry_out(id, {}), PlanState::kFailed);

  expect_stayed();
  const PlanRecord plan = *journal_.plan(id);
  EXPECT_EQ(plan.moves[0].state, MoveState::kFailed);
  EXPECT_EQ(plan.moves[0].error, "web1 goes on running on host1: the link broke");
  EXPECT_EQ(plan.moves[1].state, MoveState::kSkipped);
  EXPECT_EQ(plan.moves[1].error, "web1 could not be moved, so the plan ended");
}

TEST_F(ExecutorTest, DiscardsThePausedCopyThatAFailureLeft) {
  const PlanId id = begun();
  carrier_.fates = {Fate::kLeavesCopy};
  EXPECT_EQ(executor().carry_out(id, {}), PlanState::kFailed);
  expect_stayed();
  EXPECT_THAT(kinds(), Contains("copy_discarded"));
}

TEST_F(ExecutorTest, FailsWhenTheTargetCannotGetReady) {
  const PlanId id = begun();
  carrier_.refuse = {"prepare"};
  EXPECT_EQ(executor().carry_out(id, {}), PlanState::kFailed);
  expect_stayed();
  EXPECT_EQ(journal_.plan(id)->moves[0].error,
            "host2 could not get ready for web1: prepare was refused");
}

TEST_F(ExecutorTest, FailsWhenTheVmIsNoLongerThere) {
  const PlanId id = begun();
  carrier_.hosts["host1"].erase(kWeb1);
  EXPECT_EQ(executor().carry_out(id, {}), PlanState::kFailed);
  EXPECT_EQ(journal_.plan(id)->moves[0].error, "web1 was not moved: host1 does not have it");
}

TEST_F(ExecutorTest, SettlesAMigrationWhoseStartWasNotAnswered) {
  const PlanId id = begun();
  carrier_.lose_answer = {"start"};
  EXPECT_EQ(executor().carry_out(id, {}), PlanState::kDone);
  expect_moved();
}

TEST_F(ExecutorTest, SettlesAMigrationWhoseSourceWasLostMeanwhile) {
  const PlanId id = begun();
  carrier_.fates = {Fate::kArrivesPaused};
  carrier_.after = [&](std::string_view call) {
    if (call == "start") carrier_.cut_off_until["host1"] = clock_.now() + std::chrono::seconds(60);
  };
  on_rest_ = [&] { carrier_.after = nullptr; };

  EXPECT_EQ(executor().carry_out(id, {}), PlanState::kDone);

  expect_moved();
  EXPECT_THAT(kinds(), Contains("vm_resumed"));
}

TEST_F(ExecutorTest, CancelsAMigrationThatTakesTooLong) {
  const PlanId id = begun();
  carrier_.migration_time = std::chrono::hours(5);
  EXPECT_EQ(executor().carry_out(id, {}), PlanState::kFailed);
  expect_stayed();
  EXPECT_THAT(carrier_.calls, Contains("cancel host1"));
}

TEST_F(ExecutorTest, CancelsAMoveWhoseSourceForgetsItsDeadline) {
  plan_.moves[0].mode.time_max = std::chrono::seconds(10);
  const PlanId id = begun();
  carrier_.migration_time = std::chrono::seconds(100);
  EXPECT_EQ(executor().carry_out(id, {}), PlanState::kFailed);
  expect_stayed();
  EXPECT_THAT(carrier_.calls, Contains("cancel host1"));
}

TEST_F(ExecutorTest, GivesAMoveTheTimeThatItWasAskedFor) {
  for (PlannedMove& move : plan_.moves) move.mode.time_max = std::chrono::minutes(5);
  const PlanId id = begun();
  carrier_.migration_time = std::chrono::minutes(4);
  EXPECT_EQ(executor().carry_out(id, {}), PlanState::kDone);
}

TEST_F(ExecutorTest, StopsAfterTheRunningMoveWhenCancelled) {
  const PlanId id = begun();
  carrier_.after = [&](std::string_view call) {
    if (call == "start") {
      EXPECT_TRUE(journal_.request_cancel(id));
    }
  };
  EXPECT_EQ(executor().carry_out(id, {}), PlanState::kCancelled);
  expect_moved();
  EXPECT_EQ(journal_.plan(id)->moves[1].state, MoveState::kSkipped);
  EXPECT_EQ(carrier_.at("host1", kWeb2), Presence::kRunning);
}

TEST_F(ExecutorTest, EndsCancelledWhenTheRunningMoveWasGivenUp) {
  const PlanId id = begun();
  carrier_.fates = {Fate::kFails};
  carrier_.after = [&](std::string_view call) {
    if (call == "start") {
      EXPECT_TRUE(journal_.request_cancel(id));
    }
  };
  EXPECT_EQ(executor().carry_out(id, {}), PlanState::kCancelled);
  EXPECT_EQ(journal_.plan(id)->moves[0].state, MoveState::kFailed);
  EXPECT_EQ(journal_.plan(id)->moves[1].state, MoveState::kSkipped);
  EXPECT_EQ(carrier_.at("host1", kWeb1), Presence::kRunning);
}

TEST_F(ExecutorTest, RefusesAPlanWhenTheFleetHasChanged) {
  const PlanId id = *journal_.propose(plan_);
  Fleet changed = fleet_;
  changed.vms[1].host = "host2";
  const Result<void> moved = executor().begin(id, changed);
  EXPECT_EQ(moved.error().code(), Errc::kInvalid);
  EXPECT_THAT(moved.error().message(), HasSubstr("(web2 is on host2 now); make a new plan"));

  changed.vms.pop_back();
  EXPECT_THAT(executor().begin(id, changed).error().message(), HasSubstr("web2 is gone"));
  changed = fleet_;
  changed.vms[0].state = VmState::kPaused;
  EXPECT_THAT(executor().begin(id, changed).error().message(), HasSubstr("is paused now"));
  changed = fleet_;
  changed.hosts[1].state = HostState::kDown;
  EXPECT_THAT(executor().begin(id, changed).error().message(), HasSubstr("host2 is down"));
  EXPECT_EQ(journal_.plan(id)->state, PlanState::kProposed);
}

TEST_F(ExecutorTest, CarriesOutAVmThatWaitsOnAThirdHost) {
  Host third = fleet_.hosts.front();
  third.name = "host3";
  fleet_.hosts.push_back(third);
  carrier_.hosts["host3"] = {};
  PlannedMove first = plan_.moves.front();
  PlannedMove second = first;
  first.target = second.source = "host3";
  plan_.moves = {first, second};

  const PlanId id = begun();

  EXPECT_EQ(*executor().carry_out(id, {}), PlanState::kDone);
  EXPECT_EQ(carrier_.at("host2", kWeb1), Presence::kRunning);
}

TEST_F(ExecutorTest, RefusesASecondPlanAndAPlanThatEnded) {
  const PlanId running = begun();
  const PlanId second = *journal_.propose(plan_);
  EXPECT_EQ(executor().begin(second, fleet_).error().code(), Errc::kInvalid);
  EXPECT_EQ(executor().begin(PlanId{99}, fleet_).error().code(), Errc::kNotFound);
  EXPECT_EQ(executor().carry_out(second, {}).error().code(), Errc::kInvalid);
  EXPECT_EQ(executor().carry_out(running, {}), PlanState::kDone);
  EXPECT_EQ(executor().begin(running, fleet_).error().code(), Errc::kInvalid);
}

TEST_F(ExecutorTest, WaitsAfterARestartForAMigrationThatGoesOn) {
  const PlanId id = in_flight(Fate::kArrives);
  EXPECT_EQ(executor().carry_out(id, {}), PlanState::kDone);
  expect_moved();
  EXPECT_EQ(journal_.plan(id)->moves[0].attempts, 1);
  EXPECT_THAT(carrier_.calls, Contains("wait host1"));
}

TEST_F(ExecutorTest, FindsAfterARestartThatTheVmArrived) {
  const PlanId id = in_flight(Fate::kArrives);
  clock_.advance(std::chrono::minutes(5));
  EXPECT_EQ(executor().carry_out(id, {}), PlanState::kDone);
  expect_moved();
  EXPECT_EQ(journal_.plan(id)->moves[0].attempts, 1);
}

TEST_F(ExecutorTest, TriesAgainAfterARestartWhatNeverHappened) {
  const PlanId id = in_flight(Fate::kFails);
  clock_.advance(std::chrono::minutes(5));
  EXPECT_EQ(executor().carry_out(id, {}), PlanState::kDone);
  expect_moved();
  EXPECT_EQ(journal_.plan(id)->moves[0].attempts, 2);
  EXPECT_THAT(kinds(), Contains("move_retried"));
}

TEST_F(ExecutorTest, DiscardsAfterARestartThePausedCopyAndTriesAgain) {
  const PlanId id = in_flight(Fate::kLeavesCopy);
  clock_.advance(std::chrono::minutes(5));
  EXPECT_EQ(executor().carry_out(id, {}), PlanState::kDone);
  expect_moved();
  EXPECT_EQ(journal_.plan(id)->moves[0].attempts, 2);
}

TEST_F(ExecutorTest, ResumesAfterARestartWhatOnlyTheTargetHas) {
  const PlanId id = in_flight(Fate::kArrivesPaused);
  clock_.advance(std::chrono::minutes(5));
  EXPECT_EQ(executor().carry_out(id, {}), PlanState::kDone);
  expect_moved();
  EXPECT_EQ(journal_.plan(id)->moves[0].attempts, 1);
}

TEST_F(ExecutorTest, ResumesOnTheSourceWhatOnlyTheSourceHas) {
  const PlanId id = in_flight(Fate::kLeavesSourcePaused);
  clock_.advance(std::chrono::minutes(5));
  EXPECT_EQ(executor().carry_out(id, {}), PlanState::kDone);
  expect_moved();
}

TEST_F(ExecutorTest, LeavesTwoPausedCopiesAloneUntilTheSourceLetsGo) {
  const PlanId id = in_flight(Fate::kPausedOnBoth);
  clock_.advance(std::chrono::seconds(11));
  EXPECT_EQ(executor().carry_out(id, {}), PlanState::kDone);
  expect_moved();
}

TEST_F(ExecutorTest, DiscardsThePausedSourceBesideARunningTarget) {
  const PlanId id = in_flight(Fate::kArrivesBesideCopy);
  clock_.advance(std::chrono::minutes(5));
  EXPECT_EQ(executor().carry_out(id, {}), PlanState::kDone);
  expect_moved();
}

TEST_F(ExecutorTest, EndsThePlanWhenTheSourceRemembersAFailure) {
  const PlanId id = in_flight(Fate::kFails, true);
  clock_.advance(std::chrono::minutes(5));
  EXPECT_EQ(executor().carry_out(id, {}), PlanState::kFailed);
  expect_stayed();
}

TEST_F(ExecutorTest, TouchesNothingWhileTheSourceCannotBeAsked) {
  const PlanId id = in_flight(Fate::kArrivesPaused);
  clock_.advance(std::chrono::minutes(5));
  carrier_.cut_off_until["host1"] = clock_.now() + std::chrono::hours(1);

  const Result<PlanState> waiting = executor().carry_out(id, {});

  EXPECT_EQ(waiting.error().code(), Errc::kUnavailable);
  EXPECT_EQ(carrier_.at("host2", kWeb1), Presence::kPaused);
  EXPECT_EQ(journal_.plan(id)->moves[0].state, MoveState::kRunning);
  clock_.advance(std::chrono::hours(1));
  EXPECT_EQ(executor().carry_out(id, {}), PlanState::kDone);
  expect_moved();
}

TEST_F(ExecutorTest, FailsWhenTheVmStayedAndTheTargetIsLostForGood) {
  const PlanId id = in_flight(Fate::kLeavesCopy);
  clock_.advance(std::chrono::minutes(5));
  carrier_.cut_off_until["host2"] = clock_.now() + std::chrono::hours(9);
  EXPECT_EQ(executor().carry_out(id, {}), PlanState::kFailed);
  EXPECT_THAT(journal_.plan(id)->moves[0].error, HasSubstr("web1 goes on running on host1; host2"));
}

TEST_F(ExecutorTest, SaysSoWhenTheVmIsGoneOrRunsTwice) {
  const PlanId gone = in_flight(Fate::kFails);
  clock_.advance(std::chrono::minutes(5));
  EXPECT_EQ(carrier_.at("host2", kWeb1), Presence::kAbsent);
  carrier_.hosts["host1"].erase(kWeb1);
  EXPECT_EQ(executor().carry_out(gone, {}), PlanState::kFailed);
  EXPECT_THAT(journal_.plan(gone)->moves[0].error, HasSubstr("neither host1 nor host2 has web1"));

  carrier_.hosts["host1"][kWeb1] = Presence::kRunning;
  const PlanId twice = in_flight(Fate::kFails);
  clock_.advance(std::chrono::minutes(5));
  EXPECT_EQ(carrier_.at("host2", kWeb1), Presence::kAbsent);
  carrier_.hosts["host2"][kWeb1] = Presence::kRunning;
  EXPECT_EQ(executor().carry_out(twice, {}), PlanState::kFailed);
  EXPECT_THAT(journal_.plan(twice)->moves[0].error, HasSubstr("stop the wrong one by hand"));
}

TEST_F(ExecutorTest, FailsWhatAPersonMustDecide) {
  const PlanId id = in_flight(Fate::kFails);
  clock_.advance(std::chrono::minutes(5));
  EXPECT_EQ(carrier_.at("host1", kWeb1), Presence::kRunning);
  carrier_.hosts["host1"][kWeb1] = Presence::kOther;
  EXPECT_EQ(executor().carry_out(id, {}), PlanState::kFailed);
  EXPECT_THAT(journal_.plan(id)->moves[0].error, HasSubstr("keep one copy by hand"));
}

TEST_F(ExecutorTest, GivesUpAMoveThatIsCutShortAgainAndAgain) {
  PlanId id = in_flight(Fate::kFails);
  for (int i = 0; i < 2; ++i) {
    clock_.advance(std::chrono::minutes(5));
    carrier_.fates = {Fate::kFails};
    std::stop_source stop;
    carrier_.after = [&](std::string_view call) {
      if (call == "start") stop.request_stop();
    };
    EXPECT_FALSE(executor().carry_out(id, stop.get_token()));
  }
  carrier_.after = nullptr;
  clock_.advance(std::chrono::minutes(5));
  EXPECT_EQ(executor().carry_out(id, {}), PlanState::kFailed);
  EXPECT_THAT(journal_.plan(id)->moves[0].error, HasSubstr("3 attempts were cut short"));
  expect_stayed();
}

TEST_F(ExecutorTest, MovesNothingWhenTheJournalCannotBeWritten) {
  const PlanId id = begun();
  Database other = *Database::open(
      {.path = folder_.file("placer.db"), .busy_timeout = std::chrono::milliseconds(0)});
  Journal blocked({}, other, clock_);
  EventLog events({}, other, clock_);
  Executor executor({}, blocked, events, carrier_, clock_);
  const Transaction held = *database_.begin();
  EXPECT_EQ(executor.carry_out(id, {}).error().code(), Errc::kUnavailable);
  EXPECT_THAT(carrier_.calls, IsEmpty());
}

TEST(Session, IsThirtyTwoHexadecimalCharactersAndNew) {
  const std::string first = *random_session();
  EXPECT_EQ(first.size(), 32U);
  EXPECT_EQ(first.find_first_not_of("0123456789abcdef"), std::string::npos);
  EXPECT_NE(first, *random_session());
}

TEST(RestOnTheClock, EndsAtOnceWhenStopped) {
  std::stop_source stop;
  stop.request_stop();
  rest_on_the_clock(std::chrono::steady_clock::now() + std::chrono::hours(1), stop.get_token());
  rest_on_the_clock(std::chrono::steady_clock::now() - std::chrono::hours(1), {});
}

}  // namespace
}  // namespace samepage::placer
