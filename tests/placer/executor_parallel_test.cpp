// The promise under test: moves that may go on at the same time do; one that fails lets the others
// end; and a killed placer's successor takes up all that were in flight.

#include <condition_variable>
#include <mutex>
#include <set>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "placer/executor.h"
#include "placer/schema.h"
#include "tests/core/temporary_folder.h"

namespace samepage::placer {
namespace {

using ::testing::HasSubstr;

/// Two agents and more whose migrations end once `wanted` of them have been under way together.
class MeetingCarrier final : public Carrier {
 public:
  std::size_t wanted = 1;
  std::size_t most_together = 0;
  std::set<std::string> fails;  ///< VMs.
  std::map<VmId, std::string> host_of;
  std::function<void()> on_started;

  Result<void> prepare(const MoveOrder&, Deadline) override { return {}; }

  Result<void> start(const MoveOrder& order, Deadline) override {
    const std::lock_guard lock(mutex_);
    under_way_.insert(order.session);
    most_together = std::max(most_together, under_way_.size());
    met_.notify_all();
    if (on_started) on_started();
    return {};
  }

  Result<MoveOutcome> wait(const MoveOrder& order, const std::function<void(const MoveProgress&)>&,
                           std::stop_token stop, Deadline) override {
    std::unique_lock lock(mutex_);
    const bool met = met_.wait_for(lock, stop, std::chrono::seconds(20),
                                   [&] { return most_together >= wanted; });
    if (stop.stop_requested()) return fail(Errc::kTimedOut, "goes on");
    if (!met) return fail(Errc::kUnavailable, "it was alone");
    return end(order);
  }

  Result<void> cancel(const MoveOrder&, Deadline) override { return {}; }

  Result<SessionStatus> query(const MoveOrder& order, Deadline) override {
    const std::lock_guard lock(mutex_);
    return SessionStatus{.kind = SessionStatus::Kind::kEnded, .outcome = end(order)};
  }

  Result<Presence> locate(const std::string& host, const VmId& vm, Deadline) override {
    const std::lock_guard lock(mutex_);
    return host_of[vm] == host ? Presence::kRunning : Presence::kAbsent;
  }

  Result<void> settle(const std::string&, const VmId&, Verdict, Deadline) override {
    return fail(Errc::kInvalid, "there is nothing to settle");
  }

 private:
  MoveOutcome end(const MoveOrder& order) {
    under_way_.erase(order.session);
    if (fails.contains(order.name))
      return {.runs_on = Side::kSource, .error = "the link broke", .figures = {}};
    host_of[order.vm] = order.target;
    return {.runs_on = Side::kTarget, .error = {}, .figures = {}};
  }

  std::mutex mutex_;
  std::condition_variable_any met_;
  std::set<std::string> under_way_;
};

class ExecutorParallelTest : public ::testing::Test {
 protected:
  ExecutorParallelTest() { EXPECT_TRUE(migrate_schema(database_)); }

  void add(const std::string& vm, const std::string& source, const std::string& target) {
    plan_.moves.push_back({.vm = VmId{vm},
                           .name = vm,
                           .sharing_domain = "default",
                           .source = source,
                           .target = target,
                           .reason = "shares"});
    carrier_.host_of[VmId{vm}] = source;
    Vm known;
    known.id = VmId{vm};
    known.name = vm;
    known.host = source;
    known.state = VmState::kRunning;
    fleet_.vms.push_back(known);
    for (const std::string& host : {source, target}) {
      if (fleet_.find_host(host) != nullptr) continue;
      Host up;
      up.name = host;
      up.state = HostState::kUp;
      fleet_.hosts.push_back(up);
    }
  }

  Result<PlanState> run(const std::stop_token& stop = {}) {
    Executor::Options options;
    options.limits.at_once = 4;
    Executor executor(options, journal_, events_, carrier_, clock_);
    if (id_.value == 0) {
      id_ = *journal_.propose(plan_);
      TRY(executor.begin(id_, fleet_));
    }
    return executor.carry_out(id_, stop);
  }

  MoveState state(std::size_t move) { return journal_.plan(id_)->moves.at(move).state; }

  TemporaryFolder folder_;
  SystemClock clock_;
  Database database_ =
      *Database::open({.path = folder_.file("placer.db"), .synchronous_full = false});
  Journal journal_{{}, database_, clock_};
  EventLog events_{{}, database_, clock_};
  MeetingCarrier carrier_;
  Fleet fleet_;
  Plan plan_;
  PlanId id_;
};

TEST_F(ExecutorParallelTest, MovesOfDifferentHostsGoOnTogether) {
  add("a", "host1", "host2");
  add("b", "host1", "host2");
  add("c", "host3", "host4");
  carrier_.wanted = 2;

  EXPECT_EQ(run(), PlanState::kDone);

  EXPECT_EQ(carrier_.most_together, 2U);
  EXPECT_EQ(carrier_.host_of[VmId{"b"}], "host2");
}

TEST_F(ExecutorParallelTest, AFailureLetsTheOthersEndAndNoneBegin) {
  add("a", "host1", "host2");
  add("b", "host3", "host4");
  add("c", "host1", "host2");
  carrier_.wanted = 2;
  carrier_.fails = {"a"};

  EXPECT_EQ(run(), PlanState::kFailed);

  EXPECT_EQ(state(0), MoveState::kFailed);
  EXPECT_EQ(state(1), MoveState::kDone);
  EXPECT_EQ(state(2), MoveState::kSkipped);
  EXPECT_THAT(journal_.plan(id_)->moves[2].error, HasSubstr("a could not be moved"));
}

TEST_F(ExecutorParallelTest, TheNextPlacerTakesUpAllThatWereInFlight) {
  add("a", "host1", "host2");
  add("b", "host3", "host4");
  add("c", "host1", "host2");
  carrier_.wanted = 3;  // Never.
  std::stop_source stop;
  int started = 0;
  carrier_.on_started = [&] {
    if (++started == 2) stop.request_stop();
  };
  EXPECT_EQ(run(stop.get_token()).error().code(), Errc::kTimedOut);
  EXPECT_EQ(state(0), MoveState::kRunning);
  EXPECT_EQ(state(1), MoveState::kRunning);
  EXPECT_EQ(state(2), MoveState::kPlanned);

  carrier_.wanted = 1;
  EXPECT_EQ(run(), PlanState::kDone);

  for (std::size_t move = 0; move < 3; ++move) EXPECT_EQ(state(move), MoveState::kDone);
}

TEST_F(ExecutorParallelTest, ACancelledPlanEndsWithTheMovesThatGoOn) {
  add("a", "host1", "host2");
  add("b", "host3", "host4");
  add("c", "host1", "host2");
  carrier_.wanted = 2;
  int started = 0;
  carrier_.on_started = [&] {
    if (++started != 2) return;
    Database other = *Database::open({.path = folder_.file("placer.db")});
    EXPECT_TRUE(Journal({}, other, clock_).request_cancel(id_));
  };

  EXPECT_EQ(run(), PlanState::kCancelled);

  EXPECT_EQ(state(0), MoveState::kDone);
  EXPECT_EQ(state(1), MoveState::kDone);
  EXPECT_EQ(state(2), MoveState::kSkipped);
}

}  // namespace
}  // namespace samepage::placer
