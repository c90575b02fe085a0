// The promise under test: a scan is done when every host has scanned, and the others are named.

#include <gtest/gtest.h>

#include "tests/tools/scripted_placer.h"

namespace samepage::cli {
namespace {

TEST_F(SubcommandsTest, ScanNamesTheHostsThatFailed) {
  answer("POST /scan", R"({"hosts":3,"failed":[{"host":"beta","message":"is down"}]})");

  const Output output = samepage({"scan"});

  EXPECT_EQ(output.exit_code, 1);
  EXPECT_EQ(output.err, "beta: is down\nsamepage: 1 of 3 hosts could not be scanned\n");
}

TEST_F(SubcommandsTest, ScanIsDoneWhenAllHostsAre) {
  answer("POST /scan", R"({"hosts":3,"failed":[]})");

  EXPECT_EQ(samepage({"scan"}).exit_code, 0);
}

}  // namespace
}  // namespace samepage::cli
