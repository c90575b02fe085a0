// The promise under test: a filter never misses a hash that was added, is wrong about others as
// rarely as asked, and parses nothing that it did not write.

#include "fingerprinter/bloom_filter.h"

#include <random>

#include <gtest/gtest.h>

namespace samepage::fingerprinter {
namespace {

constexpr std::size_t kBytesMax = 1U << 20U;

BloomFilter filled(BloomFilter filter, std::size_t count, std::uint64_t seed) {
  std::mt19937_64 random(seed);
  for (std::size_t i = 0; i < count; ++i) filter.add({random()});
  return filter;
}

double hit_rate(const BloomFilter& filter, std::size_t count, std::uint64_t seed) {
  std::mt19937_64 random(seed);
  std::size_t hits = 0;
  for (std::size_t i = 0; i < count; ++i) hits += filter.lookup({random()}) ? 1 : 0;
  return static_cast<double>(hits) / static_cast<double>(count);
}

TEST(BloomFilterTest, NeverMissesWhatWasAdded) {
  for (const unsigned k : {1U, 2U, 7U, 16U}) {
    const BloomFilter filter = filled({100'000, k}, 10'000, 1);
    EXPECT_EQ(hit_rate(filter, 10'000, 1), 1.0) << k;
  }
}

TEST(BloomFilterTest, IsWrongAsRarelyAsAsked) {
  for (const double rate : {0.1, 0.01, 0.001}) {
    const BloomFilter filter = filled(BloomFilter::sized_for(50'000, rate), 50'000, 2);
    const double wrong = hit_rate(filter, 200'000, 3);
    EXPECT_GT(wrong, rate * 0.8) << rate;
    EXPECT_LT(wrong, rate * 1.2) << rate;
  }
}

TEST(BloomFilterTest, StaysWithinCellsMaxAndThenUsesTheBestK) {
  const BloomFilter filter = filled(BloomFilter::sized_for(50'000, 0.001, 100'000), 50'000, 4);
  EXPECT_LE(filter.cells(), 100'000U);
  EXPECT_EQ(filter.k(), 1U);
  EXPECT_NEAR(hit_rate(filter, 100'000, 5), 1 - std::exp(-0.5), 0.01);
}

TEST(BloomFilterTest, RoundsItsCellsUp) {
  EXPECT_EQ(BloomFilter(0, 1).cells(), 64U);
  EXPECT_EQ(BloomFilter(64, 1).cells(), 64U);
  EXPECT_EQ(BloomFilter(65, 1).cells(), 128U);
  EXPECT_EQ(BloomFilter::sized_for(0, 0.5).cells(), 64U);
}

TEST(BloomFilterTest, ParsesWhatItSerialized) {
  const BloomFilter filter = filled({1000, 3}, 100, 6);

  const BloomFilter parsed = BloomFilter::parse(filter.serialize(), kBytesMax).value();

  EXPECT_EQ(parsed.k(), filter.k());
  EXPECT_TRUE(std::ranges::equal(parsed.words(), filter.words()));
}

TEST(BloomFilterTest, RefusesEveryTruncationAndWhatFollows) {
  std::vector<std::byte> bytes = BloomFilter(1000, 3).serialize();
  for (std::size_t size = 0; size < bytes.size(); ++size) {
    EXPECT_EQ(BloomFilter::parse(std::span(bytes).first(size), kBytesMax).error().code(),
              Errc::kCorrupt);
  }
  bytes.push_back(std::byte{0});
  EXPECT_EQ(BloomFilter::parse(bytes, kBytesMax).error().code(), Errc::kCorrupt);
}

TEST(BloomFilterTest, RefusesAForeignMagicAnImpossibleKAndTooManyBytes) {
  const std::vector<std::byte> bytes = BloomFilter(1000, 3).serialize();
  auto foreign = bytes;
  foreign[0] ^= std::byte{1};
  EXPECT_EQ(BloomFilter::parse(foreign, kBytesMax).error().code(), Errc::kCorrupt);
  for (const int k : {0, 17, 255}) {
    auto changed = bytes;
    changed[4] = static_cast<std::byte>(k);
    EXPECT_EQ(BloomFilter::parse(changed, kBytesMax).error().code(), Errc::kCorrupt);
  }
  EXPECT_EQ(BloomFilter::parse(bytes, bytes.size() - 1).error().code(), Errc::kCorrupt);
}

}  // namespace
}  // namespace samepage::fingerprinter
