// The promise under test: bash is offered what may follow: words of the program, names from the
// placer, files.

#include <gtest/gtest.h>

#include "tests/tools/scripted_placer.h"

namespace samepage::cli {
namespace {

/// What bash offers after `words`, the last of which is being typed.
class CompletionTest : public SubcommandsTest {
 protected:
  std::string offered(const std::string& words) {
    if (!server_) start();
    const std::string script = R"(source <("$0" completion bash); COMP_WORDS=("$0" )" + words +
                               R"(); COMP_CWORD=$((${#COMP_WORDS[@]} - 1)); _samepage; )" +
                               R"(echo "${COMPREPLY[@]}")";
    const Output output =
        testing::run({"/bin/bash", "-c", script, SAMEPAGE_PROGRAM}, environment());
    EXPECT_EQ(output.err, "");
    return output.out;
  }
};

TEST_F(CompletionTest, OffersSubcommandsAndOptions) {
  EXPECT_EQ(offered("ho"), "hosts\n");
  EXPECT_EQ(offered("hosts en"), "enroll\n");
  EXPECT_EQ(offered("apply --d"), "--dry-run\n");
  EXPECT_EQ(offered("plan list --js"), "--json\n");
  EXPECT_EQ(offered("--socket " + socket_ + " sc"), "scan\n");
}

TEST_F(CompletionTest, AsksThePlacerForNames) {
  answer("GET /hosts", kHosts);
  answer("GET /vms", kVms);
  answer("GET /plans", R"({"plans":[)" + plan_json("p7", "proposed", "") + "]}");

  EXPECT_EQ(offered("migrate we"), "web3\n");
  EXPECT_EQ(offered("migrate web3 d"), "db1\n");
  EXPECT_EQ(offered("migrate web3 --to b"), "beta\n");
  EXPECT_EQ(offered("migrate --to ''"), "alpha beta\n");
  EXPECT_EQ(offered("migrate --to beta d"), "db1\n");
  EXPECT_EQ(offered("hosts forget al"), "alpha\n");
  EXPECT_EQ(offered("apply p"), "p7\n");
  EXPECT_EQ(offered("plan show p"), "p7\n");
}

TEST_F(CompletionTest, OffersFilesWhereFilesAreMeant) {
  dir_.write("token", "x");

  EXPECT_EQ(offered("--token-file " + dir_.file("tok")), dir_.file("token") + "\n");
}

}  // namespace
}  // namespace samepage::cli
