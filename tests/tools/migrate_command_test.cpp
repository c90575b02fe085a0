// The promise under test: a migration is a plan of its moves, which can be given up.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/tools/scripted_placer.h"

namespace samepage::cli {
namespace {

using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

TEST_F(PlanRunTest, MigrateIsAPlanOfItsMoves) {
  ended_as_ = "done";
  ended_moves_ = move_json("web3", "done", "") + "," + move_json("web4", "done", "");

  const Output output = samepage({"migrate", "web3", "web4", "--to", "beta"});

  EXPECT_EQ(output.exit_code, 0) << output.err;
  EXPECT_THAT(requests(),
              ElementsAre(R"(POST /api/v1/migrations {"target":"beta","vms":["web3","web4"]})",
                          "GET /events 0"));
  EXPECT_THAT(output.err, HasSubstr("moving web3, web4 to beta as plan p7"));
  EXPECT_THAT(output.out, HasSubstr("213 ms"));
}

TEST_F(PlanRunTest, ADryRunOfAMigrationMovesNothing) {
  const Output output = samepage({"migrate", "web3", "--to", "beta", "--dry-run"});

  EXPECT_EQ(output.exit_code, 0) << output.err;
  EXPECT_THAT(requests(), ElementsAre(HasSubstr(R"("dry_run":true)")));
  EXPECT_THAT(output.err, HasSubstr("nothing was moved; `samepage apply p7` carries it out"));
}

TEST_F(PlanRunTest, CtrlCGivesTheRunningMigrationUp) {
  start();
  ChildProcess migrate(command({"migrate", "web3", "--to", "beta"}), environment());
  ASSERT_TRUE(migrate.wait_for_err("moving web3 to beta\n"));

  migrate.interrupt();
  const Output output = migrate.finish();

  EXPECT_EQ(output.exit_code, 1);
  EXPECT_THAT(output.err, HasSubstr("giving the running move up"));
  EXPECT_THAT(requests(), Contains(R"(POST /api/v1/plans/p7/cancel {"at_once":true})"));
}

TEST_F(PlanRunTest, CancelGivesUpTheMigrationOfTheseVms) {
  set_state("running");

  const Output other = samepage({"migrate", "--cancel", "web9"});
  const Output output = samepage({"migrate", "--cancel", "web3"});
  const Output none = samepage({"migrate", "--cancel"});

  EXPECT_EQ(other.exit_code, 1);
  EXPECT_THAT(other.err, HasSubstr("no migration of these VMs goes on"));
  EXPECT_EQ(output.exit_code, 0) << output.err;
  EXPECT_THAT(requests(), Contains(R"(POST /api/v1/plans/p7/cancel {"at_once":true})"));
  EXPECT_EQ(none.exit_code, 1);
  EXPECT_THAT(none.err, HasSubstr("no migration goes on"));
}

}  // namespace
}  // namespace samepage::cli
