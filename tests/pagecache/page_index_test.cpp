// The promise under test: the index keeps what was put in within 24 bytes a page, forgets exactly
// one source when told to, and refuses what its entries cannot express.

#include "pagecache/page_index.h"

#include <random>

#include <gtest/gtest.h>

namespace samepage::pagecache {
namespace {

using Places = std::array<Place, PageIndex::kPlacesMax>;

TEST(PageIndexTest, TakesAtMost24BytesAPage) {
  std::mt19937_64 random(1);
  PageIndex index;
  std::size_t count = 0;
  for (const std::size_t target : {20'000, 50'000, 100'000, 300'000, 1'000'000}) {
    for (; count < target; ++count) ASSERT_TRUE(index.insert({random()}, {1, count}));
    EXPECT_LE(index.bytes(), 24 * count) << count;
    EXPECT_GE(index.bytes(), 16 * count) << count;
  }
}

TEST(PageIndexTest, FindsEveryPageAfterAnotherSourceWasErased) {
  constexpr std::uint64_t kCount = 50'000;
  PageIndex index;
  for (std::uint64_t i = 0; i < kCount; ++i) {
    std::mt19937_64 random(i);
    const PageHash hash{random()};
    ASSERT_TRUE(index.insert(hash, {1, i}));
    ASSERT_TRUE(index.insert(hash, {2, i + 7}));
    ASSERT_TRUE(index.insert({random()}, {1, i}));
  }

  EXPECT_EQ(index.erase(1), 2 * kCount);
  EXPECT_EQ(index.erase(1), 0U);

  Places places;
  for (std::uint64_t i = 0; i < kCount; ++i) {
    std::mt19937_64 random(i);
    ASSERT_EQ(index.find({random()}, places), 1U);
    EXPECT_EQ(places[0].slot, 2U);
    EXPECT_EQ(places[0].page, i + 7);
    ASSERT_EQ(index.find({random()}, places), 0U);
  }
  EXPECT_LE(index.bytes(), 24 * kCount);
}

TEST(PageIndexTest, KeepsFewPlacesOfOneHash) {
  PageIndex index;
  for (std::uint32_t slot = 0; slot < 10; ++slot) {
    for (std::uint64_t page = 0; page < 10; ++page) index.insert({42}, {slot, page});
  }
  Places places;
  EXPECT_EQ(index.find({42}, places), 4U);
  EXPECT_EQ(places[0].slot, 0U);
  EXPECT_EQ(places[1].slot, 0U);
  EXPECT_EQ(places[2].slot, 1U);
  EXPECT_EQ(places[3].page, 1U);
}

TEST(PageIndexTest, RefusesPlacesThatAnEntryCannotHold) {
  PageIndex index;
  EXPECT_FALSE(index.insert({1}, {PageIndex::kSlotsMax, 0}));
  EXPECT_FALSE(index.insert({1}, {0, PageIndex::kPagesMax}));
  EXPECT_TRUE(index.insert({1}, {PageIndex::kSlotsMax - 1, PageIndex::kPagesMax - 1}));
  Places places;
  ASSERT_EQ(index.find({1}, places), 1U);
  EXPECT_EQ(places[0].slot, PageIndex::kSlotsMax - 1);
  EXPECT_EQ(places[0].page, PageIndex::kPagesMax - 1);
}

}  // namespace
}  // namespace samepage::pagecache
