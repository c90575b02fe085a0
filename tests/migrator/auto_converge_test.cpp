#include "migrator/auto_converge.h"

#include <gtest/gtest.h>

namespace samepage::migrator {
namespace {

using namespace std::chrono_literals;

constexpr std::uint64_t kMiB = 1U << 20U;

TEST(AutoConvergeTest, RoundsThatGetShorterHoldNobody) {
  AutoConverge converge;
  for (std::uint64_t bytes = 1'024 * kMiB; bytes > 0; bytes /= 2) {
    EXPECT_EQ(converge.round_ended(bytes, 1s), std::nullopt);
  }
}

TEST(AutoConvergeTest, AWriterAsFastAsTheLinkIsLeftHalfOfIt) {
  AutoConverge converge;
  EXPECT_EQ(converge.round_ended(100 * kMiB, 10s), std::nullopt);
  EXPECT_EQ(converge.round_ended(100 * kMiB, 10s), std::nullopt);
  EXPECT_EQ(converge.round_ended(100 * kMiB, 10s), 5 * kMiB);
}

TEST(AutoConvergeTest, HalfOfThatWhenItDoesNotHelpDownToTheLeast) {
  AutoConverge converge;
  converge.round_ended(100 * kMiB, 10s);
  std::uint64_t last = 10 * kMiB;
  for (int round = 0; round < 20; ++round) {
    const auto limit = converge.round_ended(100 * kMiB, 10s);
    if (!limit) continue;
    EXPECT_EQ(*limit, std::max(last / 2, AutoConverge::kBytesPerSecondMin));
    last = *limit;
  }
  EXPECT_EQ(last, AutoConverge::kBytesPerSecondMin);
}

TEST(AutoConvergeTest, AFasterLinkLaterDoesNotLoosenIt) {
  AutoConverge converge;
  converge.round_ended(100 * kMiB, 10s);
  converge.round_ended(100 * kMiB, 10s);
  ASSERT_EQ(converge.round_ended(100 * kMiB, 10s), 5 * kMiB);
  EXPECT_EQ(converge.round_ended(100 * kMiB, 1s), std::nullopt);
  EXPECT_EQ(converge.round_ended(100 * kMiB, 1s), 5 * kMiB / 2);
}

TEST(AutoConvergeTest, EmptyRoundsSayNothing) {
  AutoConverge converge;
  for (int round = 0; round < 5; ++round) {
    EXPECT_EQ(converge.round_ended(0, 0ns), std::nullopt);
  }
}

}  // namespace
}  // namespace samepage::migrator
