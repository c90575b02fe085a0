// The promise under test: what is known of the hosts is shown, and who joins and leaves is passed
// on.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/tools/scripted_placer.h"

namespace samepage::cli {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

TEST_F(SubcommandsTest, HostsListsThemWithWhatIsKnown) {
  answer("GET /hosts", kHosts);

  const Output output = samepage({"hosts"});

  EXPECT_EQ(output.exit_code, 0);
  EXPECT_THAT(output.out, HasSubstr("alpha  up            2  7952 MiB"));
  EXPECT_THAT(output.out, HasSubstr("beta   never_seen    -         -"));
  EXPECT_EQ(output.err, "");
}

TEST_F(SubcommandsTest, HostsEnrollAndForgetPassTheNameOn) {
  answer("POST /hosts", R"({"name":"gamma","state":"never_seen"})");
  answer("DELETE /hosts/NAME", "{}");

  const Output enrolled = samepage({"hosts", "enroll", "gamma", "KEY"});
  const Output forgotten = samepage({"hosts", "forget", "gamma"});

  EXPECT_EQ(enrolled.exit_code, 0) << enrolled.err;
  EXPECT_THAT(enrolled.err, HasSubstr("enrolled gamma"));
  EXPECT_EQ(forgotten.exit_code, 0) << forgotten.err;
  EXPECT_THAT(requests(), ElementsAre(R"(POST /hosts {"name":"gamma","public_key":"KEY"})",
                                      "DELETE /hosts/NAME"));
}

}  // namespace
}  // namespace samepage::cli
