// The promise under test: what cannot be booted is refused before anything is.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/tools/scripted_placer.h"

namespace samepage::cli {
namespace {

using ::testing::HasSubstr;

TEST_F(SubcommandsTest, DivergenceRefusesWhatCannotBeBootedAndSaysHowToMendIt) {
  const auto refusal = [&](std::vector<std::string> arguments) {
    arguments.insert(arguments.begin(), "divergence");
    const Output output = samepage(arguments);
    EXPECT_EQ(output.exit_code, 1);
    return output.err;
  };

  EXPECT_THAT(refusal({}), HasSubstr("name an IMAGE of the store, or a --kernel"));
  EXPECT_THAT(refusal({"debian", "--boots", "1"}), HasSubstr("--boots is from 2 to 32"));
  EXPECT_THAT(refusal({"debian", "--memory", "8"}), HasSubstr("--memory is 32 MiB at least"));
  EXPECT_THAT(refusal({"debian", "--with", "aslr"}), HasSubstr("use nokaslr, fixed-seeds or"));
  EXPECT_THAT(refusal({"debian", "--at", "900"}), HasSubstr("--at is beyond --time-max"));
  EXPECT_THAT(refusal({"debian", "--accel", "kvm", "--with", "fixed-clock"}),
              HasSubstr("need --accel tcg"));
  EXPECT_THAT(refusal({"debian", "--store", dir_.file("none")}), HasSubstr("none"));
}

}  // namespace
}  // namespace samepage::cli
