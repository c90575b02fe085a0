// The promise under test: whatever faults befall hosts, agents, answers and the placer itself, a
// plan ends, no VM ever runs twice, none is lost, and the journal tells the truth. A simulated
// fleet, faults from a printed seed, invariants checked at every call to an agent. SAMEPAGE_SEED
// repeats one seed, SAMEPAGE_SEEDS says how many to try.

#include <cstdlib>
#include <random>
#include <set>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "placer/executor.h"
#include "placer/schema.h"
#include "tests/core/temporary_folder.h"
#include "tests/fakes/fake_carrier.h"
#include "tests/fakes/fake_clock.h"

namespace samepage::placer {
namespace {

using ::testing::IsEmpty;

struct PlacerKilled {};

class Simulation {
 public:
  explicit Simulation(unsigned seed) : random_(seed) {
    plan_ = random_plan();
    carrier_.before = [this](std::string_view call) { on_call(call); };
    carrier_.after = [this](std::string_view) { maybe_kill(); };
  }

  void run() {
    quiet_ = true;
    start_placer();
    id_ = *journal_->propose(plan_);
    ASSERT_TRUE(executor_->begin(id_, fleet_));
    for (int life = 0; life < 400; ++life) {
      quiet_ = life > 200;
      if (ends_now()) {
        check_end();
        return;
      }
    }
    FAIL() << "the plan does not end";
  }

  int kills() const { return kills_; }
  std::size_t calls() const { return carrier_.calls.size(); }

 private:
  unsigned pick(unsigned below) { return static_cast<unsigned>(random_() % below); }
  bool happens(unsigned in_a_thousand) {
    return !quiet_ && pick(1000) < in_a_thousand * intensity_ / 8;
  }

  Plan random_plan() {
    Plan plan;
    for (unsigned h = 0; h < 3 + pick(3); ++h) {
      Host host;
      host.name = "host" + std::to_string(h);
      host.state = HostState::kUp;
      fleet_.hosts.push_back(host);
      carrier_.hosts[host.name] = {};
    }
    const auto hosts = static_cast<unsigned>(fleet_.hosts.size());
    for (unsigned v = 0; v < 3 + pick(6); ++v) {
      const unsigned source = pick(hosts);
      Vm vm;
      vm.id = VmId{"vm" + std::to_string(v)};
      vm.name = vm.id.uuid;
      vm.host = fleet_.hosts[source].name;
      vm.state = VmState::kRunning;
      fleet_.vms.push_back(vm);
      carrier_.hosts[vm.host][vm.id] = Presence::kRunning;
      const std::string target = fleet_.hosts[(source + 1 + pick(hosts - 1)) % hosts].name;
      plan.moves.push_back({.vm = vm.id,
                            .name = vm.name,
                            .sharing_domain = "default",
                            .source = vm.host,
                            .target = target,
                            .reason = "simulated"});
    }
    return plan;
  }

  // A new life of the placer: nothing survives but the file.
  void start_placer() {
    executor_.reset();
    events_.reset();
    journal_.reset();
    database_.reset();
    database_.emplace(
        *Database::open({.path = folder_.file("placer.db"), .synchronous_full = false}));
    ASSERT_TRUE(migrate_schema(*database_));
    journal_.emplace(Journal::Options{}, *database_, clock_);
    events_.emplace(EventLog::Options{}, *database_, clock_);
    Executor::Options options;
    options.rest = [this](Deadline until, const std::stop_token&) {
      maybe_kill();
      if (until > clock_.now()) clock_.advance(until - clock_.now());
    };
    options.new_session = [this]() -> Result<std::string> {
      maybe_kill();
      return "session" + std::to_string(++sessions_);
    };
    options.on_event = [this](const Event&) { maybe_kill(); };
    executor_.emplace(options, *journal_, *events_, carrier_, clock_);
  }

  // True when the plan has ended.
  bool ends_now() {
    try {
      const Result<PlanState> ended = executor_->carry_out(id_, {});
      if (ended) return true;
      EXPECT_EQ(ended.error().code(), Errc::kUnavailable) << ended.error().message();
      clock_.advance(std::chrono::minutes(1));
    } catch (const PlacerKilled&) {
      ++kills_;
      clock_.advance(std::chrono::seconds(pick(40)));
      start_placer();
      // The plan may have ended with the last thing that the killed placer wrote.
      return journal_->plan(id_)->state != PlanState::kRunning;
    }
    return false;
  }

  void maybe_kill() {
    if (happens(20)) throw PlacerKilled();
  }

  void on_call(std::string_view call) {
    maybe_kill();
    check_journal(call);
    EXPECT_THAT(carrier_.violations, IsEmpty());
    const std::string host = fleet_.hosts[pick(static_cast<unsigned>(fleet_.hosts.size()))].name;
    if (happens(40)) {
      carrier_.cut_off_until[host] = clock_.now() + std::chrono::seconds(1 + pick(90));
    }
    if (happens(30)) carrier_.forgetful.insert(host);
    if (happens(30)) carrier_.lose_answer.insert(std::string(call));
    carrier_.refuse.clear();
    if (happens(10)) carrier_.refuse.insert(std::string(call));
    carrier_.fates.clear();
    if (happens(500)) carrier_.fates.push_back(static_cast<fakes::Fate>(pick(7)));
    if (quiet_) carrier_.cut_off_until.clear();
  }

  // While agents are asked, one move runs, those before it are done, those after it untouched.
  void check_journal(std::string_view call) {
    const PlanRecord plan = *journal_->plan(id_);
    EXPECT_EQ(plan.state, PlanState::kRunning) << call;
    std::size_t running = plan.moves.size();
    for (std::size_t i = 0; i < plan.moves.size(); ++i) {
      const MoveState state = plan.moves[i].state;
      if (state == MoveState::kRunning) running = i;
      if (i == running) continue;
      EXPECT_EQ(state, i < running ? MoveState::kDone : MoveState::kPlanned);
    }
    ASSERT_LT(running, plan.moves.size());
    EXPECT_FALSE(plan.moves[running].session.empty());
  }

  // The journal's word against the hosts' own, long after.
  void check_end() {
    quiet_ = true;
    clock_.advance(std::chrono::hours(2));
    const PlanRecord plan = *journal_->plan(id_);
    EXPECT_NE(plan.state, PlanState::kRunning);
    for (const MoveRecord& record : plan.moves) {
      const bool is_done = record.state == MoveState::kDone;
      const std::string& owner = is_done ? record.move.target : record.move.source;
      for (const Host& host : fleet_.hosts) {
        const Presence presence = carrier_.at(host.name, record.move.vm);
        if (host.name == owner) {
          EXPECT_EQ(presence, Presence::kRunning) << record.move.name << ": " << record.error;
        } else if (record.state != MoveState::kFailed) {
          EXPECT_EQ(presence, Presence::kAbsent) << record.move.name << ": " << record.error;
        }
      }
      EXPECT_NE(record.state, MoveState::kPlanned);
      EXPECT_NE(record.state, MoveState::kRunning);
      EXPECT_EQ(record.error.empty(), is_done);
    }
    EXPECT_FALSE(carrier_.is_busy());
    EXPECT_THAT(carrier_.violations, IsEmpty());
  }

  std::mt19937 random_;
  unsigned intensity_ = 1 + pick(8);  // Mild faults let plans get far.
  bool quiet_ = false;
  TemporaryFolder folder_;
  fakes::FakeClock clock_;
  fakes::FakeCarrier carrier_{clock_};
  Fleet fleet_;
  Plan plan_;
  PlanId id_;
  std::optional<Database> database_;
  std::optional<Journal> journal_;
  std::optional<EventLog> events_;
  std::optional<Executor> executor_;
  int sessions_ = 0;
  int kills_ = 0;
};

TEST(Simulation, EveryPlanEndsAndEveryVmRunsOnceWhateverHappens) {
  unsigned first = std::random_device()() % 1'000'000;
  unsigned count = 60;
  if (const char* seeds = std::getenv("SAMEPAGE_SEEDS")) {  // NOLINT(concurrency-mt-unsafe)
    count = static_cast<unsigned>(std::strtoul(seeds, nullptr, 10));
  }
  // concurrency-mt-unsafe: nothing sets the environment here.
  if (const char* seed = std::getenv("SAMEPAGE_SEED")) {  // NOLINT(concurrency-mt-unsafe)
    first = static_cast<unsigned>(std::strtoul(seed, nullptr, 10));
    count = 1;
  }
  int kills = 0;
  std::size_t calls = 0;
  for (unsigned seed = first; seed < first + count; ++seed) {
    SCOPED_TRACE("SAMEPAGE_SEED=" + std::to_string(seed));
    Simulation simulation(seed);
    simulation.run();
    kills += simulation.kills();
    calls += simulation.calls();
    if (::testing::Test::HasFailure()) break;
  }
  std::printf("seeds %u to %u: %zu calls to agents, %d kills of the placer\n", first,
              first + count - 1, calls, kills);
}

}  // namespace
}  // namespace samepage::placer
