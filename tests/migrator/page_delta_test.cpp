// The promise under test: a difference turns the older page into the newer one, stays within its
// bound, and whatever is no difference is kCorrupt.

#include "migrator/page_delta.h"

#include <algorithm>
#include <random>

#include <gtest/gtest.h>

#include "tests/fakes/fake_qemu_stream.h"

namespace samepage::migrator {
namespace {

using Bytes = std::vector<std::byte>;

PageView view(const Bytes& page) {
  return std::span(page).first<kPageSize>();
}

Bytes patched(const Bytes& delta, Bytes page) {
  const auto rest = apply_delta(delta, std::span(page).first<kPageSize>());
  EXPECT_TRUE(rest && rest->empty());
  return page;
}

TEST(PageDeltaTest, MakesTheNewerPageOfTheOlder) {
  std::mt19937_64 random(1);
  for (int round = 0; round < 300; ++round) {
    const Bytes older = fakes::random_bytes(kPageSize, random);
    Bytes newer = older;
    for (std::uint64_t i = random() % 60; i > 0; --i) {
      const std::size_t at = random() % kPageSize;
      const std::size_t end = std::min<std::size_t>(kPageSize, at + 1 + random() % 40);
      for (std::size_t k = at; k < end; ++k) newer[k] = static_cast<std::byte>(random());
    }
    Bytes delta;
    ASSERT_TRUE(append_delta(view(older), view(newer), 2 * kPageSize, delta));

    ASSERT_EQ(patched(delta, older), newer);
  }
}

TEST(PageDeltaTest, IsSmallWhereLittleDiffers) {
  const Bytes older(kPageSize);
  Bytes newer = older;
  Bytes delta;
  ASSERT_TRUE(append_delta(view(older), view(newer), 100, delta));
  EXPECT_EQ(delta.size(), 1U);

  newer.front() = newer.back() = std::byte{1};
  std::fill_n(newer.begin() + 1000, 16, std::byte{2});
  delta.clear();
  ASSERT_TRUE(append_delta(view(older), view(newer), 100, delta));
  EXPECT_LE(delta.size(), 30U);
  EXPECT_EQ(patched(delta, older), newer);
}

TEST(PageDeltaTest, LeavesAloneWhatDiffersInMuch) {
  std::mt19937_64 random(2);
  const Bytes older = fakes::random_bytes(kPageSize, random);
  const Bytes newer = fakes::random_bytes(kPageSize, random);
  Bytes delta(3, std::byte{7});

  EXPECT_FALSE(append_delta(view(older), view(newer), 1000, delta));
  EXPECT_EQ(delta, Bytes(3, std::byte{7}));
}

TEST(PageDeltaTest, ReturnsWhatLiesBehind) {
  const Bytes older(kPageSize);
  const Bytes newer(kPageSize, std::byte{1});
  Bytes delta;
  ASSERT_TRUE(append_delta(view(older), view(newer), 2 * kPageSize, delta));
  delta.push_back(std::byte{9});
  Bytes page = older;

  const auto rest = apply_delta(delta, std::span(page).first<kPageSize>()).value();

  ASSERT_EQ(rest.size(), 1U);
  EXPECT_EQ(rest[0], std::byte{9});
}

TEST(PageDeltaTest, AppliesOrRefusesDamagedDifferences) {
  std::mt19937_64 random(3);
  for (int round = 0; round < 20'000; ++round) {
    const Bytes delta = fakes::random_bytes(random() % 64, random);
    Bytes page(kPageSize);
    const auto rest = apply_delta(delta, std::span(page).first<kPageSize>());
    if (!rest) {
      ASSERT_EQ(rest.error().code(), Errc::kCorrupt);
    }
  }
}

}  // namespace
}  // namespace samepage::migrator
