// The promise under test: a fleet too large to compare every VM with every host is planned by the
// same rules as a small one: what is looked up in the index is what comparing would have told.

#include <algorithm>
#include <chrono>
#include <map>
#include <set>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "placer/arrangement.h"
#include "placer/packing/random.h"
#include "placer/planner.h"
#include "placer/prospects.h"
#include "tests/placer/synthetic_fleet.h"

namespace samepage::placer {
namespace {

using ::testing::Contains;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;

constexpr std::size_t kHosts = 150;
static_assert(kHosts > Prospects::kAll);

std::string host_name(std::size_t number) {
  return "host" + std::to_string(1'000 + number);
}

/// Two VMs of one kind on every third host, one of another kind beside them.
SyntheticFleet many_hosts() {
  SyntheticFleet fleet;
  for (std::size_t i = 0; i < kHosts; ++i) fleet.host(host_name(i), 600);
  for (std::size_t i = 0; i < kHosts; i += 3) {
    const std::string kind = "kind" + std::to_string(i % 5);
    const std::string other = "kind" + std::to_string((i + 1) % 5);
    const std::string number = std::to_string(1'000 + i);
    fleet.vm("a" + number, host_name(i), {{.pool = kind, .mib = 20}});
    fleet.vm("b" + number, host_name(i), {{.pool = kind, .mib = 20}});
    fleet.vm("c" + number, host_name(i), {{.pool = other, .mib = 20}});
  }
  return fleet;
}

void carry_out(const Plan& plan, Fleet& fleet) {
  std::map<VmId, std::string> targets;
  for (const PlannedMove& move : plan.moves) targets[move.vm] = move.target;
  for (Vm& vm : fleet.vms) {
    const auto moved = targets.find(vm.id);
    if (moved != targets.end()) vm.host = moved->second;
  }
}

Scene random_scene(std::size_t hosts, std::size_t vms) {
  Random random(7);
  Scene scene;
  scene.words = 8;
  scene.pages_of_cells = PackProblem::linear(scene.words, 10);
  for (std::size_t i = 0; i < hosts; ++i) {
    SceneHost host;
    host.name = host_name(i);
    host.bin = {.capacity = 1e6, .loads = {8, 1, 1}};
    scene.hosts.push_back(std::move(host));
  }
  for (std::size_t i = 0; i < vms; ++i) {
    SceneVm vm;
    vm.name = "vm" + std::to_string(i);
    vm.host = random.below(hosts);
    for (std::size_t w = 0; w < scene.words; ++w) {
      vm.demand.cells.push_back(random.next() & random.next());
    }
    vm.full_pages = scene.pages(vm.demand);
    scene.vms.push_back(std::move(vm));
  }
  return scene;
}

TEST(IndexedArrangement, KnowsWhatComparingWouldTellThroughAllMoves) {
  const Scene scene = random_scene(kHosts, 600);
  Arrangement indexed(scene, {});
  indexed.index_hosts();
  Random random(11);
  const std::size_t mark = indexed.mark();
  for (int i = 0; i < 300; ++i) {
    indexed.move(random.below(scene.vms.size()), random.below(scene.hosts.size()));
    if (i == 200) indexed.roll_back(mark);
  }
  Arrangement plain(scene, {});
  for (std::uint32_t vm = 0; vm < scene.vms.size(); ++vm) plain.move(vm, indexed.host_of(vm));

  std::vector<std::uint16_t> looked_up;
  std::vector<std::uint16_t> compared;
  for (std::uint32_t vm = 0; vm < scene.vms.size(); vm += 7) {
    const Unit unit = indexed.unit(vm);
    indexed.common_cells(unit, looked_up);
    plain.common_cells(unit, compared);
    ASSERT_EQ(looked_up, compared);
    for (std::uint32_t host = 0; host < kHosts; ++host) {
      EXPECT_EQ(indexed.common(unit, host, looked_up[host]), indexed.common(unit.demand, host));
    }
  }
}

TEST(Prospects, NameTheHostsThatHaveMostInCommonAndNeverItsOwn) {
  const Scene scene = random_scene(kHosts, 600);
  Arrangement arrangement(scene, {});
  arrangement.index_hosts();
  const Prospects prospects(arrangement);
  for (std::uint32_t vm = 0; vm < scene.vms.size(); vm += 50) {
    const Unit unit = arrangement.unit(vm);
    std::uint32_t best = kNowhere;
    for (std::uint32_t host = 0; host < kHosts; ++host) {
      if (host == scene.vms[vm].host) continue;
      const double common = arrangement.common(unit.demand, host);
      if (best == kNowhere || common > arrangement.common(unit.demand, best)) best = host;
    }
    const std::vector<std::uint32_t> hosts = prospects.of(unit);
    EXPECT_THAT(hosts, Contains(best));
    EXPECT_THAT(hosts, Not(Contains(scene.vms[vm].host)));
    EXPECT_TRUE(std::is_sorted(hosts.begin(), hosts.end()));
    EXPECT_LE(hosts.size(), Prospects::kMostAlike + Prospects::kRoomiest);
  }
}

TEST(LargeFleet, IsImprovedUntilNothingIsWorthMoving) {
  Fleet fleet = many_hosts().fleet();
  const Plan first = *plan(fleet, {});
  EXPECT_GE(first.moves.size(), 50U) << first.summary;
  EXPECT_GT(first.shared_after_pages, first.shared_before_pages);
  std::set<VmId> seen;
  for (const PlannedMove& move : first.moves) EXPECT_TRUE(seen.insert(move.vm).second);
  for (const Stay& stay : first.stays) {
    EXPECT_TRUE(seen.insert(stay.vm).second);
    EXPECT_THAT(stay.reason, Not(IsEmpty()));
  }
  EXPECT_EQ(seen.size(), fleet.vms.size());

  carry_out(first, fleet);
  Plan made = *plan(fleet, {});
  for (int i = 0; i < 10 && !made.moves.empty(); ++i) {
    carry_out(made, fleet);
    made = *plan(fleet, {});
  }
  EXPECT_THAT(made.moves, IsEmpty());
}

TEST(LargeFleet, GivesTheSamePlanHoweverManyThreads) {
  const Fleet fleet = many_hosts().fleet();
  const Plan one = *plan(fleet, {.threads = 1});
  const Plan four = *plan(fleet, {.threads = 4});
  ASSERT_EQ(one.moves.size(), four.moves.size());
  for (std::size_t i = 0; i < one.moves.size(); ++i) {
    EXPECT_EQ(one.moves[i].name, four.moves[i].name);
    EXPECT_EQ(one.moves[i].target, four.moves[i].target);
  }
  EXPECT_EQ(one.summary, four.summary);
}

TEST(LargeFleet, HostsAreFreedAndAnEmptyHostIsNobodysHome) {
  const Fleet fleet = many_hosts().fleet();
  PlanOptions options;
  options.goal = Goal::kHosts;
  options.search = std::chrono::milliseconds(200);
  const Plan made = *plan(fleet, options);
  EXPECT_EQ(made.hosts_before, 50U);
  EXPECT_LT(made.hosts_after, 50U);
  EXPECT_GE(made.hosts_packed, made.hosts_bound);
  EXPECT_LE(made.hosts_packed, made.hosts_after);
  for (const std::string& freed : made.freed_hosts) {
    for (const PlannedMove& move : made.moves) EXPECT_NE(move.target, freed);
  }
}

TEST(LargeFleet, ADrainFindsEveryVmTheHostThatSharesMost) {
  SyntheticFleet fleet = many_hosts();
  PlanOptions options;
  options.goal = Goal::kMovement;
  options.rules = {{Rule::Kind::kMaintenance, "drain", {}, {host_name(3)}}};
  const Plan made = *plan(fleet.fleet(), options);
  ASSERT_EQ(made.moves.size(), 3U);
  EXPECT_EQ(made.freed_hosts, std::vector<std::string>{host_name(3)});
  for (const PlannedMove& move : made.moves) EXPECT_GT(move.terms.sharing, 0.3) << move.name;
}

}  // namespace
}  // namespace samepage::placer
