// The promise under test: a plan is followed to its end, through signals and a restart of the
// placer.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/tools/scripted_placer.h"

namespace samepage::cli {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;

TEST_F(PlanRunTest, ApplyTakesTheNewestProposedPlanAndShowsItsCost) {
  ended_as_ = "done";
  ended_moves_ = move_json("web3", "done", "");

  const Output output = samepage({"apply"});

  EXPECT_EQ(output.exit_code, 0) << output.err;
  EXPECT_THAT(requests(), ElementsAre("POST /api/v1/plans/p7/apply", "GET /events 0"));
  EXPECT_THAT(output.err, HasSubstr("moving web3 to beta\n"));
  EXPECT_THAT(output.err, Not(HasSubstr("\033")));
  EXPECT_THAT(output.out, HasSubstr("web3  alpha  beta  done   202 MiB  11 MiB        5 %  48000"
                                    "    213 ms  1840 ms\n"));
  EXPECT_THAT(output.out, HasSubstr("web3 goes on sharing 4.0 MiB with its template."));
}

TEST_F(PlanRunTest, ApplyJsonIsThePlanAsItEnded) {
  ended_as_ = "done";
  ended_moves_ = move_json("web3", "done", "");

  const Output output = samepage({"apply", "p7", "--json"});

  EXPECT_EQ(output.exit_code, 0) << output.err;
  EXPECT_EQ(output.out, plan_json("p7", "done", ended_moves_) + "\n");
}

TEST_F(PlanRunTest, ADryRunMovesNothing) {
  const Output output = samepage({"apply", "--dry-run"});

  EXPECT_EQ(output.exit_code, 0) << output.err;
  EXPECT_THAT(output.out, HasSubstr("web3  alpha  beta  planned"));
  EXPECT_THAT(output.err, HasSubstr("nothing was moved"));
  EXPECT_TRUE(requests().empty());
}

TEST_F(PlanRunTest, ApplyWithoutAProposedPlanSaysHowToGetOne) {
  end("done", "");

  const Output output = samepage({"apply"});

  EXPECT_EQ(output.exit_code, 1);
  EXPECT_THAT(output.err, HasSubstr("`samepage plan` computes one"));
}

TEST_F(PlanRunTest, AFailedMoveSaysWhyAndWhereTheVmIs) {
  ended_as_ = "failed";
  ended_moves_ = move_json("web3", "failed", "beta ran out of memory");

  const Output output = samepage({"apply", "p7"});

  EXPECT_EQ(output.exit_code, 1);
  EXPECT_THAT(output.err, HasSubstr("web3 did not move: beta ran out of memory. "
                                    "It is on alpha (running).\n"));
  EXPECT_THAT(output.err, HasSubstr("samepage: plan p7 ended failed: 0 of 1 move done\n"));
  EXPECT_THAT(output.out, HasSubstr("failed"));
}

TEST_F(PlanRunTest, TheFirstCtrlCStopsThePlanAfterTheRunningMove) {
  start();
  ChildProcess apply(command({"apply", "p7"}), environment());
  ASSERT_TRUE(apply.wait_for_err("moving web3"));

  apply.interrupt();
  const Output output = apply.finish();

  EXPECT_EQ(output.exit_code, 1);
  EXPECT_THAT(output.err, HasSubstr("stopping after the running move"));
  EXPECT_THAT(output.err, HasSubstr("plan p7 ended cancelled"));
  EXPECT_THAT(requests(), ElementsAre("POST /api/v1/plans/p7/apply", "GET /events 0",
                                      "POST /api/v1/plans/p7/cancel"));
}

TEST_F(PlanRunTest, TheSecondCtrlCLeavesThePlanToThePlacer) {
  obeys_cancel_ = false;
  start();
  ChildProcess apply(command({"apply", "p7"}), environment());
  ASSERT_TRUE(apply.wait_for_err("moving web3"));
  apply.interrupt();
  ASSERT_TRUE(apply.wait_for_err("stopping after the running move"));

  apply.interrupt();
  const Output output = apply.finish();

  EXPECT_EQ(output.exit_code, 1);
  EXPECT_THAT(output.err, HasSubstr("`samepage plan show p7` tells how it ends"));
}

TEST_F(PlanRunTest, ApplyLivesThroughARestartOfThePlacer) {
  start();
  ChildProcess apply(command({"apply", "p7"}), environment());
  ASSERT_TRUE(apply.wait_for_err("moving web3"));

  server_.reset();
  end("done", move_json("web3", "done", ""));
  start();
  const Output output = apply.finish();

  EXPECT_EQ(output.exit_code, 0) << output.err;
  EXPECT_THAT(output.out, HasSubstr("213 ms"));
}

}  // namespace
}  // namespace samepage::cli
