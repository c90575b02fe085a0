// The promise under test: a plan that takes VMs to another class of hosts counts with what the
// overhead model says that they use there; says so; and says when there is no model.

#include "placer/class_costs.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "placer/arrangement.h"
#include "placer/planner.h"
#include "tests/placer/synthetic_fleet.h"

namespace samepage::placer {
namespace {

using ::testing::Contains;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

const std::vector<Ingredient> kWeb{{.pool = "web", .mib = 60}};

/// Twice the cores and half a one.
const ClassModel kSlower{.id = 7,
                         .source = "new",
                         .target = "old",
                         .of = Resource::kCpu,
                         .constant = 0.5,
                         .factors = {2, 0, 0},
                         .median_error_pct = 3,
                         .p90_error_pct = 8};

/// A host in maintenance whose VM uses `cores`, and one of another class with 4 cores.
Fleet two_classes(double cores) {
  SyntheticFleet fleet;
  fleet.host("host1", 1000).host("host2", 1000);
  fleet.fleet().hosts[0].hardware = "new";
  fleet.fleet().hosts[1].hardware = "old";
  fleet.vm("web1", "host1", kWeb);
  auto usage = std::make_shared<VmUsage>();
  for (int i = 0; i < 20; ++i) usage->series[0].add(cores);
  fleet.last().usage = usage;
  return fleet.fleet();
}

void add_host(const char* hardware, Scene& scene) {
  SceneHost host;
  host.name = hardware;
  host.bin = {.capacity = 100, .loads = {10, 10, 10}};
  host.hardware = hardware;
  scene.hosts.push_back(host);
}

PlanOptions leaving_host1(std::vector<ClassModel> models) {
  PlanOptions options;
  options.goal = Goal::kMovement;
  options.rules = {{Rule::Kind::kMaintenance, "drain-host1", {}, {"host1"}}};
  options.class_models = std::move(models);
  return options;
}

TEST(ClassCosts, APlanCountsWithWhatAVmUsesOnTheOtherClass) {
  const Plan made = *plan(two_classes(1), leaving_host1({kSlower}));

  ASSERT_EQ(made.moves.size(), 1U);
  EXPECT_THAT(made.moves[0].reason, HasSubstr("counted with 2.50 cores on host2 instead of 1.00"));
  EXPECT_THAT(made.moves[0].reason, HasSubstr("overhead model 7"));
  EXPECT_THAT(made.notes, IsEmpty());
}

TEST(ClassCosts, AHostTooSlowForAVmDoesNotGetIt) {
  // 1.5 cores here are 3.5 there, above 75 % of its 4.
  const Plan with_model = *plan(two_classes(1.5), leaving_host1({kSlower}));
  const Plan without = *plan(two_classes(1.5), leaving_host1({}));

  EXPECT_THAT(with_model.moves, IsEmpty());
  ASSERT_EQ(with_model.stays.size(), 1U);
  EXPECT_THAT(with_model.stays[0].reason, HasSubstr("CPU"));
  EXPECT_EQ(without.moves.size(), 1U);
  EXPECT_THAT(without.notes, Contains(HasSubstr("no overhead model from new to old")));
}

TEST(ClassCosts, AMoveThatWasAskedForIsJudgedByTheModelToo) {
  PlanOptions options;
  options.class_models = {kSlower};
  EXPECT_TRUE(plan_move(two_classes(1), "web1", "host2", options));
  EXPECT_EQ(plan_move(two_classes(1.5), "web1", "host2", options).error().code(), Errc::kInvalid);
}

TEST(ClassCosts, CountsWithinAClassAndOfNewVmsAsMeasured) {
  Scene scene;
  scene.words = 8;
  scene.pages_of_cells = PackProblem::linear(8, 1);
  scene.class_models = {kSlower};
  for (const char* hardware : {"new", "new", "old"}) {
    add_host(hardware, scene);
  }
  SceneVm vm;
  vm.demand.loads = {1, 5, 6};
  scene.vms = {vm, vm};
  scene.vms[0].host = 0;

  const ClassCosts costs(scene);

  EXPECT_EQ(costs.on(0, 1), (Loads{1, 5, 6}));
  EXPECT_EQ(costs.on(0, 2), (Loads{2.5, 5, 6}));
  EXPECT_EQ(costs.on(1, 2), (Loads{1, 5, 6}));
  EXPECT_EQ(costs.most(0), (Loads{2.5, 5, 6}));
  EXPECT_EQ(costs.least(0), (Loads{1, 5, 6}));
  EXPECT_THAT(costs.describe(0, 1), IsEmpty());
}

TEST(ClassCosts, AnArrangementAddsUpWhatTheHostReallyCarries) {
  Scene scene;
  scene.words = 8;
  scene.pages_of_cells = PackProblem::linear(8, 1);
  scene.class_models = {kSlower};
  for (const char* hardware : {"new", "old"}) {
    add_host(hardware, scene);
  }
  SceneVm vm;
  vm.host = 0;
  vm.demand.cells.resize(8);
  vm.demand.loads = {1, 0, 0};
  scene.vms = {vm};

  Arrangement arrangement(scene, {});
  arrangement.move(0, 1);
  EXPECT_DOUBLE_EQ(arrangement.loads(1)[0], 2.5);
  arrangement.move(0, 0);

  EXPECT_DOUBLE_EQ(arrangement.loads(0)[0], 1);
  EXPECT_DOUBLE_EQ(arrangement.loads(1)[0], 0);
}

}  // namespace
}  // namespace samepage::placer
