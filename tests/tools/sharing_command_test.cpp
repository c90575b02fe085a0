// The promise under test: hosts and pairs are shown with what they share, and RAM images compared
// without a placer.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/tools/scripted_placer.h"

namespace samepage::cli {
namespace {

using ::testing::HasSubstr;

TEST_F(SubcommandsTest, SharingOfRamImagesIsExactAndNeedsNoPlacer) {
  const TempDir folder;
  const std::string image =
      folder.write("a.ram", std::string(3 * 4096, 'x') + std::string(4096, 'y'));

  const Output found = samepage({"sharing", "--json", "--exact", image, image});
  EXPECT_EQ(found.exit_code, 0) << found.err;
  EXPECT_EQ(found.out,
            R"({"between_mib":0.0078125,"pairs":[{"a":")" + image + R"(","b":")" + image +
                R"(","shared_mib":0.0078125}],"total_mib":0.0234375,"within_mib":0.015625,)"
                R"("zero_mib":0.0})"
                "\n");

  const Output torn = samepage({"sharing", "--exact", "/etc/hostname"});
  EXPECT_EQ(torn.exit_code, 1);
  EXPECT_NE(torn.err.find("not a raw RAM image"), std::string::npos) << torn.err;
}

TEST_F(SubcommandsTest, SharingShowsHostsMatrixAndPairs) {
  answer("GET /sharing",
         R"({"hosts":[{"name":"alpha","vms":3,"predicted_shared_mib":230,"low_mib":221,)"
         R"("high_mib":239,"zero_mib":12,"within_mib":8,"between_mib":210,)"
         R"("achieved_shared_mib":207,"oldest_fingerprint_age_s":31}],"pairs":[)"
         R"({"a":"db1","b":"web1","mib":4,"low_mib":3,"high_mib":5},)"
         R"({"a":"web1","b":"web3","mib":150,"low_mib":141,"high_mib":159,"age_s":7},)"
         R"({"a":"db1","b":"web3","mib":5,"low_mib":4,"high_mib":6}]})");

  const Output output = samepage({"sharing"});

  EXPECT_EQ(output.exit_code, 0);
  EXPECT_THAT(output.out, HasSubstr("alpha    3  12 MiB  8.0 MiB  210 MiB    230 MiB  221-239 MiB"
                                    "   207 MiB          90 %     31 s\n"));
  EXPECT_THAT(output.out, HasSubstr("web3    5.0 MiB  150 MiB         \n"));
  EXPECT_THAT(output.out, HasSubstr("web1  web3  150 MiB  141-159 MiB      7 s\n"));
  EXPECT_LT(output.out.find("web1  web3  150"), output.out.find("db1   web3  5.0"));
}

}  // namespace
}  // namespace samepage::cli
