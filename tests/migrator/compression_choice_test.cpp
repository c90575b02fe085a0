#include "migrator/compression_choice.h"

#include <gtest/gtest.h>

#include "migrator/packed_bytes.h"

namespace samepage::migrator {
namespace {

/// Shows a choice batches of a MiB, each of which takes so long.
class ShownBatches {
 public:
  explicit ShownBatches(CompressionChoice& choice) : choice_(choice) {}

  bool little_found = true;

  void show(int count, std::chrono::milliseconds each, bool encoders_late, bool link_late) {
    for (int i = 0; i < count; ++i) {
      now_ += each;
      const int level = choice_.level();
      choice_.saw({.level = level,
                   .literal_bytes = 1U << 20U,
                   .paid = level != kPackNothing,
                   .encoders_late = encoders_late,
                   .link_late = link_late,
                   .little_found = little_found},
                  now_);
    }
  }

 private:
  CompressionChoice& choice_;
  CompressionChoice::Time now_{std::chrono::hours(1)};
};

constexpr std::chrono::milliseconds kFast{1};
constexpr std::chrono::milliseconds kSlow{10};

TEST(CompressionChoiceTest, FollowsWhatIsLate) {
  CompressionChoice choice(6);
  ShownBatches batches(choice);
  EXPECT_EQ(choice.level(), 1);
  batches.show(5, kFast, false, true);
  EXPECT_EQ(choice.level(), 6);
  batches.show(100, kFast, false, false);
  EXPECT_EQ(choice.level(), 6);
  batches.show(5, kFast, true, false);
  EXPECT_EQ(choice.level(), 1);
  batches.show(5, kFast, true, false);
  EXPECT_EQ(choice.level(), -3);
}

TEST(CompressionChoiceTest, IsOffWhileMoreComesThroughSo) {
  CompressionChoice choice(6);
  ShownBatches batches(choice);
  batches.show(9, kSlow, true, false);
  EXPECT_FALSE(choice.is_off());
  batches.show(1, kSlow, true, false);
  EXPECT_TRUE(choice.is_off());
  EXPECT_EQ(choice.level(), kPackNothing);
  batches.show(100, kFast, false, true);
  EXPECT_TRUE(choice.is_off());
  batches.show(18, 2 * kSlow, false, true);
  EXPECT_FALSE(choice.is_off());
}

TEST(CompressionChoiceTest, NoticesWhatIsLateMostOfTheTime) {
  CompressionChoice choice(6);
  ShownBatches batches(choice);
  batches.little_found = false;
  for (int i = 0; i < 12; ++i) {
    batches.show(2, kSlow, true, false);
    batches.show(1, kSlow, false, false);
  }
  EXPECT_EQ(choice.level(), -3);
  for (int i = 0; i < 100; ++i) {
    batches.show(1, kSlow, true, false);
    batches.show(2, kSlow, false, false);
  }
  EXPECT_EQ(choice.level(), -3);
}

TEST(CompressionChoiceTest, StaysOnWhereLookingUpIsWhatTakesTime) {
  CompressionChoice choice(6);
  ShownBatches batches(choice);
  batches.little_found = false;
  batches.show(1000, kSlow, true, false);
  EXPECT_EQ(choice.level(), -3);
}

TEST(CompressionChoiceTest, DoesNotTryAgainSoonWhatWasSlower) {
  CompressionChoice choice(6);
  ShownBatches batches(choice);
  batches.show(10, kFast, true, false);
  batches.show(9, kSlow, false, true);
  EXPECT_EQ(choice.level(), -3);
  batches.show(256, kFast, true, false);
  EXPECT_EQ(choice.level(), -3);
  batches.show(1, kFast, true, false);
  EXPECT_TRUE(choice.is_off());
}

TEST(CompressionChoiceTest, TriesRarelyWhatDoesNotPay) {
  CompressionChoice choice(3);
  int tried = 0;
  for (int i = 0; i < 160; ++i) {
    const int level = choice.level();
    if (level != kPackNothing) ++tried;
    choice.saw({.level = level, .literal_bytes = 1U << 20U}, {});
  }
  EXPECT_LT(tried, 16);
  EXPECT_GT(tried, 8);
  while (choice.level() == kPackNothing) continue;
  choice.saw({.level = 1, .literal_bytes = 1U << 20U, .paid = true}, {});
  EXPECT_EQ(choice.level(), 1);
}

}  // namespace
}  // namespace samepage::migrator
