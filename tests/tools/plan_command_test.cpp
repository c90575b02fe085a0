// The promise under test: a plan gives its reasons, and stored ones are read again.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/tools/scripted_placer.h"

namespace samepage::cli {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::StartsWith;

TEST_F(SubcommandsTest, PlanGivesAReasonForEveryMoveAndStay) {
  answer("POST /plans", plan_json("p7", "proposed", move_json("web3", "planned", "")));

  const Output output = samepage({"plan", "--gain-min", "16"});

  EXPECT_EQ(output.exit_code, 0) << output.err;
  EXPECT_THAT(requests(), ElementsAre(R"(POST /plans {"gain_min_mib":16.0})"));
  EXPECT_THAT(output.out,
              StartsWith("Plan p7 (proposed): 1 move, 1 VM left alone\n"
                         "Predicted sharing 80 MiB now, 230 MiB afterwards (+150 MiB)"));
  EXPECT_THAT(output.out, HasSubstr("web3  alpha  beta  planned  +150 MiB  shares 150 MiB with"));
  EXPECT_THAT(output.out, HasSubstr("db1    beta  paused\n"));
  EXPECT_THAT(output.err, HasSubstr("samepage apply p7"));
}

TEST_F(SubcommandsTest, PlanShowAndListReadStoredPlans) {
  const std::string plan = plan_json("p7", "done", move_json("web3", "done", ""));
  answer("GET /plans/ID", plan);
  answer("GET /plans", R"({"plans":[)" + plan + "]}");

  EXPECT_THAT(samepage({"plan", "show", "p7"}).out,
              StartsWith("Plan p7 (done): 1 move, 1 VM left alone\n"
                         "Predicted sharing 80 MiB now, 230 MiB afterwards (+150 MiB)\n"
                         "Achieved sharing 71 MiB before the plan, 204 MiB when it ended; "
                         "KSM goes on merging\n"
                         "web3 joins web1\n"));
  EXPECT_EQ(samepage({"plan", "show", "p7", "--json"}).out, plan + "\n");
  EXPECT_EQ(samepage({"plan", "list"}).out,
            "PLAN  STATE  MOVES      GAIN  CREATED\n"
            "p7    done       1  +150 MiB  2026-01-02T03:04:05Z\n");
  EXPECT_EQ(samepage({"plan", "list", "--ids"}).out, "p7\n");
}

}  // namespace
}  // namespace samepage::cli
