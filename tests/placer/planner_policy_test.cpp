// The promise under test: rules, drains, hotspots and goals shape a plan of a real fleet, and a
// plan that cannot do what was asked says so.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "placer/batch_placement.h"
#include "placer/planner.h"
#include "tests/placer/synthetic_fleet.h"

namespace samepage::placer {
namespace {

using ::testing::HasSubstr;
using ::testing::IsEmpty;

const std::vector<Ingredient> kWeb{{.pool = "web", .mib = 60}};
const std::vector<Ingredient> kDb{{.pool = "db", .mib = 60}};

SyntheticFleet three_hosts() {
  SyntheticFleet fleet;
  fleet.host("host1", 1000).host("host2", 1000).host("host3", 1000);
  fleet.vm("web1", "host1", kWeb).vm("web2", "host1", kWeb).vm("web3", "host1", kWeb);
  fleet.vm("db1", "host2", kDb).vm("db2", "host2", kDb).vm("db3", "host3", kDb);
  return fleet;
}

std::map<std::string, std::string> targets(const Plan& plan) {
  std::map<std::string, std::string> targets;
  for (const PlannedMove& move : plan.moves) targets[move.name] = move.target;
  return targets;
}

TEST(PlannerPolicy, AHostInMaintenanceIsEmptiedOntoTheOthers) {
  PlanOptions options;
  options.goal = Goal::kMovement;
  options.rules = {{Rule::Kind::kMaintenance, "drain-host2", {}, {"host2"}}};
  const Plan made = *plan(three_hosts().fleet(), options);

  EXPECT_EQ(targets(made).size(), 2U);
  EXPECT_EQ(targets(made)["db1"], "host3");
  EXPECT_EQ(made.freed_hosts, std::vector<std::string>{"host2"});
  EXPECT_THAT(made.summary, HasSubstr("for rules and drains"));
}

TEST(PlannerPolicy, RulesHoldAgainstSharing) {
  PlanOptions options;
  options.rules = {{Rule::Kind::kAvoid, "not-there", {"db3"}, {"host2"}},
                   {Rule::Kind::kIgnore, "hands-off", {"db1", "db2"}, {}}};
  const Plan made = *plan(three_hosts().fleet(), options);

  EXPECT_THAT(targets(made), IsEmpty());
}

TEST(PlannerPolicy, LabelsStandForHosts) {
  SyntheticFleet fleet = three_hosts();
  fleet.fleet().hosts[2].labels["rack"] = "b";
  PlanOptions options;
  options.goal = Goal::kMovement;
  options.rules = {{Rule::Kind::kPin, "in-b", {"web1"}, {"rack=b"}}};
  EXPECT_EQ(targets(*plan(fleet.fleet(), options))["web1"], "host3");
  options.rules = {{Rule::Kind::kPin, "in-c", {"web1"}, {"rack=c"}}};
  const auto refused = plan(fleet.fleet(), options);
  ASSERT_FALSE(refused);
  EXPECT_THAT(refused.error().message(), HasSubstr("in-c"));
}

TEST(PlannerPolicy, AMemoryHotspotIsRelievedAndOthersAreLeftAlone) {
  SyntheticFleet fleet;
  fleet.host("host1", 300).host("host2", 1000).host("host3", 1000);
  fleet.vm("web1", "host1", kWeb).vm("web2", "host1", kWeb).vm("db1", "host1", kDb);
  fleet.vm("db2", "host2", kDb);
  HostUsage usage;
  for (int i = 0; i < 5; ++i) usage.series.back().add(0.93);
  fleet.fleet().hosts[0].usage = std::make_shared<HostUsage>(usage);
  // Nothing is merged: every VM's 90 MiB are there.
  fleet.fleet().hosts[0].memory =
      HostMemory{.resident_pages = 280 * kPagesPerMib, .distinct_frames = 280 * kPagesPerMib};
  PlanOptions options;
  options.goal = Goal::kMovement;

  const Plan made = *plan(fleet.fleet(), options);

  ASSERT_EQ(made.moves.size(), 1U);
  EXPECT_EQ(made.moves[0].name, "db1");
  EXPECT_EQ(made.moves[0].target, "host2");
  EXPECT_THAT(made.moves[0].reason, HasSubstr("too much of its memory"));
  EXPECT_THAT(made.summary, HasSubstr("for hotspots"));
}

TEST(PlannerPolicy, FewestHostsFreesOneAndReportsTheBound) {
  PlanOptions options;
  options.goal = Goal::kHosts;
  options.search = std::chrono::milliseconds(50);
  const Plan made = *plan(three_hosts().fleet(), options);

  EXPECT_EQ(made.hosts_before, 3U);
  EXPECT_EQ(made.hosts_after, 1U);
  EXPECT_EQ(made.hosts_bound, 1U);
  EXPECT_EQ(made.freed_hosts.size(), 2U);
}

TEST(PlannerPolicy, BalanceSpreadsAndThenRests) {
  SyntheticFleet fleet;
  fleet.host("host1", 1000).host("host2", 1000);
  for (int i = 0; i < 8; ++i) {
    fleet.vm("vm" + std::to_string(i), "host1", {{.pool = "mine" + std::to_string(i), .mib = 60}});
  }
  PlanOptions options;
  options.goal = Goal::kBalance;
  const Plan made = *plan(fleet.fleet(), options);
  EXPECT_GE(made.moves.size(), 2U);

  for (const PlannedMove& move : made.moves) {
    for (Vm& vm : fleet.fleet().vms) {
      if (vm.id == move.vm) vm.host = move.target;
    }
  }
  EXPECT_LE(plan(fleet.fleet(), options)->moves.size(), 1U);
}

TEST(PlannerPolicy, VmsThatRestAreLeftAloneAndSaySo) {
  PlanOptions options;
  options.resting["uuid-db3"] = "db3 was moved lately";
  const Plan made = *plan(three_hosts().fleet(), options);
  for (const Stay& stay : made.stays) {
    if (stay.name == "db3") {
      EXPECT_EQ(stay.reason, "db3 was moved lately");
    }
  }
  EXPECT_FALSE(targets(made).contains("db3"));
}

TEST(PlannerPolicy, AHostThatVanishedIsLeftOutAndNamed) {
  SyntheticFleet fleet = three_hosts();
  fleet.fleet().hosts[2].state = HostState::kDown;
  const Plan made = *plan(fleet.fleet(), {});
  EXPECT_THAT(made.moves, IsEmpty());
  ASSERT_EQ(made.notes.size(), 1U);
  EXPECT_EQ(made.notes[0], "host3 is down; its 1 VMs are left out of account");
}

TEST(BatchPlacement, ABootStormGoesWhereItsPagesAreAndItsImageIsWarm) {
  SyntheticFleet fleet;
  fleet.host("host1", 1000).host("host2", 1000).host("host3", 1000);
  fleet.vm("web1", "host2", kWeb).vm("db1", "host1", kDb);
  BatchRequest request{.count = 3, .name = "new", .like = "web1", .likeness = 0.6};
  request.goal = PlacementRequest::Goal::kShare;

  const BatchPlacement alike = *place_batch(fleet.fleet(), request, {});
  EXPECT_EQ(alike.hosts, (std::vector<std::string>{"host2", "host2", "host2"}));

  request = {.count = 1, .memory_pages = 100 * kPagesPerMib, .warmth = {{"host3", 1.0}}};
  request.goal = PlacementRequest::Goal::kShare;
  EXPECT_EQ(place_batch(fleet.fleet(), request, {})->hosts.front(), "host3");
}

TEST(BatchPlacement, SpreadsWithinAStepOfTheBoundAndNamesWhoDoesNotFit) {
  SyntheticFleet fleet;
  fleet.host("host1", 1000).host("host2", 1000);
  fleet.vm("web1", "host1", kWeb);
  BatchRequest request{.count = 10, .memory_pages = 100 * kPagesPerMib};

  const BatchPlacement spread = *place_batch(fleet.fleet(), request, {});
  EXPECT_LE(spread.peak, spread.peak_bound + 0.1);

  request.count = 30;
  const BatchPlacement full = *place_batch(fleet.fleet(), request, {});
  EXPECT_FALSE(full.refusals.empty());
  request.likeness = 2;
  EXPECT_EQ(place_batch(fleet.fleet(), request, {}).error().code(), Errc::kInvalid);
}

}  // namespace
}  // namespace samepage::placer
