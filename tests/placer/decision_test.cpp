// The promise under test: decisions on a scene keep every rule and every limit, step by step, and
// say why where they cannot. Scenes are written down in pools of pages, so numbers are exact.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "placer/consolidate.h"
#include "placer/cooldown.h"
#include "placer/packing/page_pools.h"
#include "placer/relieve.h"
#include "placer/rules.h"

namespace samepage::placer {
namespace {

using ::testing::HasSubstr;
using ::testing::IsEmpty;

constexpr double kMib = 256;  // Pages.

class DecisionTest : public ::testing::Test {
 protected:
  DecisionTest() {
    scene_.words = pools_.words();
    scene_.pages_of_cells = pools_.pages_of_cells();
  }

  void host(const std::string& name, double mib, double cores = 8) {
    SceneHost added;
    added.name = name;
    added.bin = {.capacity = mib * kMib, .loads = {cores, 1e9, 1e9}};
    scene_.hosts.push_back(added);
  }

  void vm(const std::string& name, const std::string& on, double own_mib, double shared_mib = 0,
          double cores = 0) {
    SceneVm added;
    added.id = added.name = name;
    added.host = scene_.find_host(on);
    added.demand.cells.resize(scene_.words);
    pools_.add("system", shared_mib * kMib, added.demand);
    added.demand.own += own_mib * kMib;
    added.full_pages = (own_mib + shared_mib) * kMib;
    added.demand.loads[0] = cores;
    scene_.vms.push_back(added);
  }

  std::string contradiction(const std::vector<Rule>& rules) {
    Scene scene = scene_;
    const auto applied = apply_rules(rules, scene);
    return applied ? "" : applied.error().message();
  }

  Arrangement arrange() { return Arrangement(scene_, {}); }
  std::string host_of(const Arrangement& arrangement, const std::string& vm) {
    return scene_.hosts[arrangement.host_of(scene_.find_vm(vm))].name;
  }

  PagePools pools_{8, kMib};
  Scene scene_;
};

TEST_F(DecisionTest, RulesThatContradictEachOtherAreNamed) {
  host("host1", 100);
  host("host2", 100);
  vm("a", "host1", 10);
  vm("b", "host2", 10);
  const Rule together{Rule::Kind::kTogether, "pair", {"a", "b"}, {}};

  EXPECT_THAT(contradiction({together, {Rule::Kind::kApart, "split", {"a", "b"}, {}}}),
              ::testing::AllOf(HasSubstr("pair"), HasSubstr("split")));
  EXPECT_THAT(contradiction({{Rule::Kind::kPin, "here", {"a"}, {"host1"}},
                             {Rule::Kind::kAvoid, "not-here", {"a"}, {"host1"}}}),
              ::testing::AllOf(HasSubstr("here"), HasSubstr("not-here")));
  EXPECT_THAT(contradiction({{Rule::Kind::kPin, "gone", {"a"}, {"host9"}}}), HasSubstr("gone"));
  EXPECT_THAT(contradiction({{Rule::Kind::kPin, "empty", {"a"}, {}}}), HasSubstr("names no host"));
  EXPECT_EQ(contradiction({together}), "");
}

TEST_F(DecisionTest, OneBrokenRuleCostsOneMove) {
  host("host1", 100);
  host("host2", 100);
  host("host3", 100);
  for (const char* name : {"a", "b", "c", "d"}) vm(name, "host1", 10);
  const std::vector<Rule> rules{{Rule::Kind::kApart, "replicas", {"a", "b"}, {}}};
  ASSERT_TRUE(apply_rules(rules, scene_));
  Arrangement arrangement = arrange();

  const Decision decision = repair(arrangement, rules, 10);

  ASSERT_EQ(decision.steps.size(), 1U);
  EXPECT_THAT(decision.steps[0].reason, HasSubstr("replicas"));
  EXPECT_THAT(broken_rules(rules, scene_, arrangement.hosts_of()), IsEmpty());
  EXPECT_THAT(repair(arrangement, rules, 10).steps, IsEmpty());
}

TEST_F(DecisionTest, ADrainedHostIsEmptiedAndWhatDoesNotFitIsNamed) {
  host("host1", 100);
  host("host2", 60);
  vm("small", "host1", 20);
  vm("large", "host1", 70);
  Arrangement arrangement = arrange();

  const Decision decision = drain(arrangement, {0}, 10);

  ASSERT_EQ(decision.steps.size(), 1U);
  EXPECT_EQ(host_of(arrangement, "small"), "host2");
  ASSERT_EQ(decision.refusals.size(), 1U);
  EXPECT_THAT(decision.refusals[0].reason, HasSubstr("no host takes large"));
  EXPECT_THAT(decision.freed_hosts, IsEmpty());
}

TEST_F(DecisionTest, VmsThatBlockEachOtherGoByAThirdHost) {
  host("host1", 100);
  host("host2", 100);
  host("host3", 60);
  vm("a", "host1", 50);
  vm("b", "host2", 50);
  vm("fill1", "host1", 35);
  vm("fill2", "host2", 35);
  Arrangement arrangement = arrange();

  const Decision decision = sequence(arrangement, {1, 0, kNowhere, kNowhere}, 10);

  EXPECT_EQ(host_of(arrangement, "a"), "host2");
  EXPECT_EQ(host_of(arrangement, "b"), "host1");
  ASSERT_EQ(decision.steps.size(), 3U);
  EXPECT_EQ(scene_.hosts[decision.steps[0].target].name, "host3");
}

TEST_F(DecisionTest, AHotHostLosesOneVmAndTheTargetStaysCool) {
  host("host1", 1000, 4);
  host("host2", 1000, 4);
  vm("busy", "host1", 100, 0, 2);
  vm("calm", "host1", 100, 0, 1.4);
  vm("other", "host2", 100, 0, 0.5);
  Arrangement arrangement = arrange();

  const Decision decision =
      relieve(arrangement, {{.host = 0, .resource = Resource::kCpu, .why = "hot"}}, {});

  EXPECT_EQ(decision.steps.size(), 1U);
  EXPECT_LE(arrangement.utilisation(0)[0], 0.75);
  EXPECT_LE(arrangement.utilisation(1)[0], 0.75);
}

TEST_F(DecisionTest, WhatAnApplicationSaysOutrightMovesOneVm) {
  host("host1", 1000, 4);
  host("host2", 1000, 4);
  vm("slow", "host1", 100, 0, 0.5);
  vm("other", "host1", 100, 0, 0.4);
  Arrangement arrangement = arrange();
  const HotHost hot{.host = 0, .resource = Resource::kCpu, .why = "slow says so", .outright = true};

  EXPECT_EQ(relieve(arrangement, {hot}, {}).steps.size(), 1U);
}

TEST_F(DecisionTest, ALittleUsedHostIsFreedWholeOrNotAtAll) {
  host("host1", 200);
  host("host2", 200);
  vm("a", "host1", 20, 60);
  vm("b", "host1", 20, 60);
  vm("c", "host2", 20, 60);
  Arrangement arrangement = arrange();

  const Decision decision = consolidate(arrangement, {}, {.low_memory = 0.9});

  ASSERT_EQ(decision.freed_hosts.size(), 1U);
  EXPECT_EQ(scene_.hosts[decision.freed_hosts[0]].name, "host2");
  EXPECT_EQ(host_of(arrangement, "c"), "host1");
}

TEST_F(DecisionTest, ImpossibleNumbersAreNamed) {
  host("host1", 100);
  vm("a", "host1", 10);
  scene_.vms[0].demand.loads[0] = std::nan("");
  EXPECT_THAT(find_scene_fault(scene_), HasSubstr("the CPU load of a is nan"));
  scene_.vms[0].demand.loads[0] = -1;
  EXPECT_THAT(find_scene_fault(scene_), HasSubstr("CPU load of a"));
  scene_.vms[0].demand.loads[0] = 0;
  scene_.hosts[0].bin.capacity = -5;
  EXPECT_THAT(find_scene_fault(scene_), HasSubstr("capacity of host1"));
}

TEST(Cooldowns, EachFurtherMoveDoublesTheRest) {
  using std::chrono::seconds;
  Cooldowns cooldowns({.first = seconds(100), .longest = seconds(300)});
  const Deadline start{seconds(1'000)};

  cooldowns.moved("vm", start);
  EXPECT_EQ(cooldowns.until("vm"), start + seconds(100));
  cooldowns.moved("vm", start + seconds(100));
  EXPECT_EQ(cooldowns.until("vm"), start + seconds(300));
  cooldowns.moved("vm", start + seconds(300));
  EXPECT_EQ(cooldowns.until("vm"), start + seconds(600));
  cooldowns.moved("vm", start + seconds(3'000));
  EXPECT_EQ(cooldowns.until("vm"), start + seconds(3'100));
  EXPECT_EQ(cooldowns.until("other"), Deadline::min());
}

}  // namespace
}  // namespace samepage::placer
