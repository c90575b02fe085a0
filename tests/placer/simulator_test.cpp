// The promise under test: the placer's decisions, run against a simulated fleet, clear hotspots
// with few moves, do not chase VMs to and fro, and live through lies and hosts that vanish.
// SAMEPAGE_SEEDS says how many seeds the fuzz tries, SAMEPAGE_SEED repeats one.

#include "placer/simulator.h"

#include <cstdlib>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace samepage::placer {
namespace {

using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;

constexpr double kMib = 256;

Scenario fleet_of(std::size_t hosts, double memory_mib, double cores) {
  Scenario scenario;
  scenario.pages_per_cell = 4 * kMib;
  for (std::size_t i = 0; i < hosts; ++i) {
    SceneHost host;
    host.name = "host" + std::to_string(i + 1);
    host.bin = {.capacity = memory_mib * kMib, .loads = {cores, 1e9, 1e9}};
    scenario.hosts.push_back(host);
  }
  return scenario;
}

ScenarioVm& add_vm(Scenario& scenario, const std::string& host, double own_mib, double cores) {
  ScenarioVm vm;
  vm.name = "vm" + std::to_string(scenario.vms.size() + 1);
  vm.host = host;
  vm.memory.push_back({.at_s = 0, .own_pages = own_mib * kMib, .pools = {}});
  vm.loads[0].base = cores;
  scenario.vms.push_back(vm);
  return scenario.vms.back();
}

TEST(Simulator, ClearsACpuHotspotWithOneMove) {
  Scenario scenario = fleet_of(3, 4'096, 4);
  scenario.duration_s = 600;
  for (int i = 0; i < 3; ++i) add_vm(scenario, "host1", 512, 1.2);
  add_vm(scenario, "host2", 512, 0.4);

  const SimulationReport report = *simulate(scenario);

  EXPECT_EQ(report.moves.size(), 1U);
  EXPECT_EQ(report.overloaded_last, 0U);
  EXPECT_GT(report.overloaded_first, 0U);
  EXPECT_EQ(report.ping_pongs, 0U);
}

// host2 is emptier than host3, but of a class where the VM would use three times as much.
TEST(Simulator, CountsWithWhatAVmUsesOnAnotherClassOfHosts) {
  Scenario scenario = fleet_of(3, 4'096, 4);
  scenario.hosts[1].hardware = "slow";
  scenario.class_models = {{.source = "", .target = "slow", .factors = {3, 0, 0}}};
  scenario.duration_s = 600;
  for (int i = 0; i < 3; ++i) add_vm(scenario, "host1", 512, 1.2);
  add_vm(scenario, "host3", 512, 0.4);

  const SimulationReport aware = *simulate(scenario);
  ASSERT_EQ(aware.moves.size(), 1U);
  EXPECT_EQ(aware.moves[0].target, "host3");
  EXPECT_EQ(aware.overloaded_last, 0U);
}

TEST(Simulator, AVmUsesOnAnotherClassOfHostsWhatTheModelSays) {
  Scenario scenario = fleet_of(2, 4'096, 4);
  scenario.hosts[0].hardware = "fast";
  scenario.hosts[1].hardware = "slow";
  scenario.class_models = {{.source = "fast", .target = "slow", .factors = {3, 0, 0}}};
  scenario.policy.hotspots = false;
  scenario.duration_s = 600;
  add_vm(scenario, "host1", 512, 1.2);
  scenario.events = {{.kind = ScenarioEvent::Kind::kDrain, .at_s = 100, .host = "host1"}};
  scenario.policy.load_max = 0.95;

  const SimulationReport report = *simulate(scenario);

  ASSERT_EQ(report.moves.size(), 1U);
  EXPECT_EQ(report.overloaded_last, 1U) << "3.6 of 4 cores are more than three quarters";
}

TEST(Simulator, LossOfSharingIsAHotspot) {
  Scenario scenario = fleet_of(2, 1'000, 8);
  scenario.duration_s = 900;
  for (int i = 0; i < 4; ++i) {
    ScenarioVm& vm = add_vm(scenario, "host1", 50, 0.1);
    vm.memory[0].pools = {{.pool = "app", .pages = 300 * kMib}};
    if (i < 2) vm.memory.push_back({.at_s = 200, .own_pages = 350 * kMib, .pools = {}});
  }

  const SimulationReport report = *simulate(scenario);

  EXPECT_THAT(report.moves, Not(IsEmpty()));
  EXPECT_EQ(report.overloaded_last, 0U);
}

TEST(Simulator, TheSameScenarioGivesTheSameReport) {
  Scenario scenario = fleet_of(4, 2'048, 4);
  scenario.duration_s = 1'800;
  for (int i = 0; i < 16; ++i) {
    ScenarioVm& vm = add_vm(scenario, "", 256, 0.3);
    vm.loads[0].noise = 0.5;
    vm.arrives_s = 60.0 * i;
  }
  const SimulationReport first = *simulate(scenario);
  const SimulationReport second = *simulate(scenario);
  EXPECT_EQ(first.moves.size(), second.moves.size());
  EXPECT_EQ(first.shared_pages, second.shared_pages);
  EXPECT_EQ(first.vms_placed, 16U);
}

TEST(Simulator, ScenariosThatContradictThemselvesAreRefused) {
  Scenario scenario = fleet_of(2, 1'000, 4);
  add_vm(scenario, "host9", 10, 0);
  EXPECT_THAT(simulate(scenario).error().message(), HasSubstr("host9, which is no host"));
  scenario.vms[0].host = "host1";
  scenario.vms[0].memory[0].own_pages = -3;
  EXPECT_EQ(simulate(scenario).error().code(), Errc::kInvalid);
  scenario.vms[0].memory[0].own_pages = 3;
  scenario.rules = {{Rule::Kind::kPin, "x", {"vm1"}, {"host1"}},
                    {Rule::Kind::kAvoid, "y", {"vm1"}, {"host1"}}};
  EXPECT_THAT(simulate(scenario).error().message(), HasSubstr("rule x"));
}

// Host1 is hot first, then host2; only vm1 may move.
Scenario see_saw() {
  Scenario scenario = fleet_of(2, 4'096, 4);
  scenario.duration_s = 3'000;
  add_vm(scenario, "host1", 256, 1.9);
  add_vm(scenario, "host1", 256, 1.9).loads[0].steps = {{1'200, 0.3}};
  add_vm(scenario, "host2", 256, 0.2).loads[0].steps = {{1'200, 2.0}};
  scenario.rules = {{Rule::Kind::kIgnore, "stay", {"vm2", "vm3"}, {}}};
  return scenario;
}

TEST(Simulator, CountsAVmThatGoesBackUnlessItMustNot) {
  Scenario scenario = see_saw();
  scenario.policy.return_after_s = 0;
  EXPECT_EQ(simulate(scenario)->ping_pongs, 1U);
  EXPECT_EQ(simulate(see_saw())->ping_pongs, 0U);
}

// A day of loads that rise and fall, lies, a host that vanishes and one that is drained.
Scenario day(std::uint64_t seed) {
  Scenario scenario = fleet_of(6, 8'192, 8);
  Random random(seed);
  scenario.seed = seed;
  scenario.duration_s = 86'400;
  scenario.policy.lies = 0.02;
  scenario.policy.return_after_s = 0;  // Nothing but the cooldown keeps a VM from going back.
  scenario.policy.consolidate_every_s = 14'400;
  for (std::size_t i = 0; i < 24; ++i) {
    ScenarioVm& vm = add_vm(scenario, "host" + std::to_string(1 + random.below(6)),
                            256.0 + random.below(512), 0.3 + random.unit());
    vm.loads[0].amplitude = 0.8 * random.unit();
    vm.loads[0].phase_s = 86'400 * random.unit();
    vm.loads[0].noise = 0.3;
    vm.memory[0].pools = {{.pool = "os" + std::to_string(random.below(3)), .pages = 256 * kMib}};
  }
  const std::string gone = "host" + std::to_string(1 + random.below(6));
  scenario.events = {{ScenarioEvent::Kind::kDown, 20'000, gone},
                     {ScenarioEvent::Kind::kUp, 30'000, gone}};
  return scenario;
}

TEST(Simulator, NobodyIsMovedToAndFroInADay) {
  std::uint64_t first = 1;
  std::uint64_t count = 4;
  if (const char* seeds = std::getenv("SAMEPAGE_SEEDS")) {  // NOLINT(concurrency-mt-unsafe)
    count = std::strtoull(seeds, nullptr, 10);
  }
  if (const char* seed = std::getenv("SAMEPAGE_SEED")) {  // NOLINT(concurrency-mt-unsafe)
    first = std::strtoull(seed, nullptr, 10);
    count = 1;
  }
  std::size_t moves = 0;
  for (std::uint64_t seed = first; seed < first + count; ++seed) {
    SCOPED_TRACE("SAMEPAGE_SEED=" + std::to_string(seed));
    const Result<SimulationReport> report = simulate(day(seed));
    ASSERT_TRUE(report) << report.error().message();
    EXPECT_EQ(report->ping_pongs, 0U) << "of " << report->moves.size() << " moves";
    EXPECT_GT(report->lies_left_out, 0U);
    moves += report->moves.size();
  }
  std::printf("%zu moves in %zu days\n", moves, static_cast<std::size_t>(count));
}

}  // namespace
}  // namespace samepage::placer
