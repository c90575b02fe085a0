// The promise under test: a gang is one plan whose moves are each as if the ones before had been
// carried out, and is refused whole when one of its VMs cannot move.

#include "placer/gang.h"

#include <array>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/placer/synthetic_fleet.h"

namespace samepage::placer {
namespace {

using ::testing::HasSubstr;

const std::vector<Ingredient> kWeb{{"web", 60}};

class PlanGang : public ::testing::Test {
 protected:
  PlanGang() {
    built_.host("host1", 1000).host("host2", 1000).host("host3", 150);
    built_.vm("web1", "host1", kWeb).vm("web2", "host1", kWeb).vm("web3", "host2", kWeb);
  }

  Result<Plan> gang(const std::vector<std::string>& vms, std::string_view target) {
    return plan_gang(built_.fleet(), vms, target, mode_, {});
  }

  SyntheticFleet built_;
  MigrateMode mode_;
};

TEST_F(PlanGang, MovesAllInTheOrderThatTheyAreNamed) {
  const Result<Plan> plan = gang({"web2", "web3", "web1"}, "host3");

  ASSERT_FALSE(plan) << "host3 has no room for three";
  const Result<Plan> roomy = gang({"web2", "web1"}, "host2");
  ASSERT_TRUE(roomy) << roomy.error().message();
  ASSERT_EQ(roomy->moves.size(), 2U);
  EXPECT_EQ(roomy->moves[0].name, "web2");
  EXPECT_EQ(roomy->moves[1].name, "web1");
  EXPECT_EQ(roomy->summary, "2 VMs move to host2");
}

TEST_F(PlanGang, CountsWhatTheEarlierOnesBringForTheLaterOnes) {
  built_.host("host4", 1000);
  const Result<Plan> plan = gang({"web1", "web2"}, "host4");

  ASSERT_TRUE(plan) << plan.error().message();
  EXPECT_LT(plan->moves[1].cost_pages, plan->moves[0].cost_pages / 2);
}

TEST_F(PlanGang, OfOneIsThatMove) {
  const Result<Plan> plan = gang({"web1"}, "host2");

  ASSERT_TRUE(plan) << plan.error().message();
  EXPECT_EQ(plan->summary, "web1 moves from host1 to host2");
}

TEST_F(PlanGang, MovesAllInTheModeThatIsAskedFor) {
  mode_ = {.streams = 4, .postcopy = false};
  const Result<Plan> plan = gang({"web1", "web2"}, "host2");
  ASSERT_TRUE(plan) << plan.error().message();
  EXPECT_EQ(plan->moves[0].mode, mode_);
  EXPECT_EQ(plan->moves[1].mode, mode_);

  mode_ = {.streams = 0, .postcopy = true, .time_max = MigrateMode::kTimeMax};
  EXPECT_TRUE(gang({"web1"}, "host2"));
  mode_.time_max += std::chrono::seconds(1);
  EXPECT_EQ(gang({"web1"}, "host2").error().code(), Errc::kInvalid);
  mode_ = {.streams = 4, .postcopy = true};
  EXPECT_EQ(gang({"web1"}, "host2").error().code(), Errc::kInvalid);
  mode_ = {.streams = MigrateMode::kStreamsMax + 1, .postcopy = false};
  EXPECT_EQ(gang({"web1"}, "host2").error().code(), Errc::kInvalid);
}

TEST_F(PlanGang, IsRefusedWholeWhenOneCannotMove) {
  EXPECT_EQ(gang({"web1", "web3"}, "host2").error().code(), Errc::kInvalid);
  EXPECT_EQ(gang({"web1", "web9"}, "host2").error().code(), Errc::kNotFound);
  EXPECT_THAT(gang({"web1", "web1"}, "host2").error().message(), HasSubstr("twice"));
  EXPECT_EQ(gang({}, "host2").error().code(), Errc::kInvalid);
  EXPECT_EQ(gang(std::vector<std::string>(kGangMax + 1, "web1"), "host2").error().code(),
            Errc::kInvalid);
}

}  // namespace
}  // namespace samepage::placer
