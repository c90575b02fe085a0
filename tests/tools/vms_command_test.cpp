// The promise under test: what is known of the VMs is shown, what they would share elsewhere, and
// how their memory went.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/tools/scripted_placer.h"

namespace samepage::cli {
namespace {

using ::testing::ContainsRegex;
using ::testing::HasSubstr;

TEST_F(SubcommandsTest, VmsShowWithWhomTheyShareMost) {
  answer("GET /vms", kVms);

  const Output output = samepage({"vms"});

  EXPECT_EQ(output.exit_code, 0);
  EXPECT_THAT(output.out, HasSubstr("web1 (150 MiB)"));
  EXPECT_THAT(output.out, HasSubstr("3.2 MiB"));
}

TEST_F(SubcommandsTest, VmsShowToWhomTheirMemoryBelongs) {
  answer("GET /vms", kVms);

  const Output output = samepage({"vms"});

  EXPECT_THAT(output.out, ContainsRegex("OWN +TEMPLATE +KSM"));
  EXPECT_THAT(output.out, ContainsRegex("186 MiB +44 MiB +133 MiB +21 MiB"));
}

TEST_F(SubcommandsTest, TheHistoryOfAVmIsHowItsMemoryWent) {
  const std::string history =
      R"({"vm":"web3","uuid":"u3","points":[{"at":"2026-01-02T03:04:05Z","host":"alpha",)"
      R"("own_mib":120,"template_mib":60,"ksm_mib":0},{"at":"2026-01-02T03:00:05Z",)"
      R"("host":"alpha","own_mib":2.5,"template_mib":177,"ksm_mib":null}]})";
  answer("GET /vms/NAME/history", history);

  const Output output = samepage({"vms", "--history", "web3"});

  EXPECT_EQ(output.exit_code, 0) << output.err;
  EXPECT_THAT(output.out, ContainsRegex("AT +HOST +OWN +TEMPLATE +KSM"));
  EXPECT_THAT(output.out, ContainsRegex("2026-01-02T03:00:05Z +alpha +2.5 MiB +177 MiB +-"));
  EXPECT_EQ(samepage({"vms", "--history", "web3", "--json"}).out, history + "\n");
  EXPECT_EQ(samepage({"vms", "--history", "web3", "--what-if", "web3=beta"}).exit_code, 2);
}

TEST_F(SubcommandsTest, VmsSaysWhatWouldBeSharedElsewhere) {
  answer("GET /what-if",
         R"({"moves":[],"gain_mib":-12.5,"hosts":[{"name":"alpha","before_mib":200,)"
         R"("after_mib":100,"low_mib":95,"high_mib":105,"oldest_fingerprint_age_s":4}]})");

  const Output output = samepage({"vms", "--what-if", "web 1=beta", "--what-if", "db=alpha"});

  EXPECT_EQ(output.exit_code, 0) << output.err;
  EXPECT_THAT(output.out, HasSubstr("alpha  200 MiB      100 MiB  95-105 MiB      4 s\n"));
  EXPECT_THAT(output.err, HasSubstr("in all -12 MiB"));
}

}  // namespace
}  // namespace samepage::cli
