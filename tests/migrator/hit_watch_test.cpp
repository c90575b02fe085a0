#include "migrator/hit_watch.h"

#include <gtest/gtest.h>

namespace samepage::migrator {
namespace {

TEST(HitWatchTest, LooksRarelyWhereNothingIsFoundUntilSomethingIs) {
  HitWatch watch;
  for (int i = 0; i < 8; ++i) {
    EXPECT_TRUE(watch.look());
    watch.saw(256, 1);
  }
  int looks = 0;
  for (int i = 0; i < 160; ++i) looks += watch.look() ? 1 : 0;
  EXPECT_EQ(looks, 10);

  watch.saw(256, 200);
  EXPECT_TRUE(watch.look());
  EXPECT_TRUE(watch.look());
}

}  // namespace
}  // namespace samepage::migrator
