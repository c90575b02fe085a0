// The promise under test: an arena's index names whole, readable extents only, its ring of regions
// gives way oldest first and never under a region that is being written, and every damaged entry or
// header is seen.

#include "imagestore/arena.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/mman.h>

#include "tests/imagestore/scratch.h"

namespace samepage::imagestore {
namespace {

using std::chrono::seconds;

constexpr std::uint64_t kRegion = 1U << 20U;

std::unique_ptr<Arena> small_arena() {
  return *Arena::create({.data_bytes = 8 * kRegion,
                         .extent_bytes_mean = 32U << 10U,
                         .gap_bytes = 4096,
                         .region_bytes_max = kRegion});
}

ObjectName name_of(std::uint64_t number) {
  ObjectName name;
  std::mt19937_64 random(number);
  for (std::byte& byte : name.bytes) byte = static_cast<std::byte>(random());
  return name;
}

IndexEntry entry_of(std::uint64_t number, std::uint64_t offset, std::uint32_t bytes = 1000) {
  return {
      .name = name_of(number), .offset = offset, .bytes = bytes, .pages = 1, .is_compressed = true};
}

class ArenaTest : public testing::Test {
 protected:
  Result<Arena::Region> reserve(std::uint64_t bytes) {
    return arena_->reserve(bytes, now_ + seconds(10), now_);
  }

  std::optional<IndexEntry> look_up(const ObjectName& name) {
    for (const std::uint64_t at : bucket_offsets(name, arena_->geometry())) {
      const auto bucket = arena_->memory().subspan(at, kBucketBytes);
      if (auto entry = find_in_bucket(bucket, name, arena_->geometry())) return entry;
    }
    return std::nullopt;
  }

  std::unique_ptr<Arena> arena_ = small_arena();
  Deadline now_ = std::chrono::steady_clock::now();
};

TEST_F(ArenaTest, PublishesWhatReadersFindAndGivesWayOldestFirst) {
  std::vector<IndexEntry> published;
  for (std::uint64_t i = 0; i < 30; ++i) {
    const auto region = reserve(kRegion);
    ASSERT_TRUE(region) << region.error().message();
    published.push_back(entry_of(i, region->offset));
    EXPECT_FALSE(look_up(published.back().name));
    ASSERT_EQ(*arena_->publish(region->id, {&published.back(), 1}), 1U);
    for (std::uint64_t old = 0; old <= i; ++old) {
      const bool should_be_there = old + 7 > i;
      EXPECT_EQ(look_up(name_of(old)).has_value(), should_be_there) << old << " of " << i;
    }
  }
  EXPECT_EQ(arena_->counts().extents, 7U);
  EXPECT_EQ(arena_->counts().extent_bytes, 7'000U);
  EXPECT_EQ(arena_->counts().evicted, 23U);
}

TEST_F(ArenaTest, WaitsForARegionThatIsBeingWrittenUntilItExpires) {
  std::vector<Arena::Region> open;
  while (auto region = reserve(kRegion)) open.push_back(*region);
  EXPECT_EQ(open.size(), 7U);
  const auto full = reserve(kRegion);
  ASSERT_FALSE(full);
  EXPECT_EQ(full.error().code(), Errc::kUnavailable);
  now_ += seconds(11);
  EXPECT_TRUE(reserve(kRegion));
  const auto gone = arena_->publish(open.front().id, {});
  ASSERT_FALSE(gone);
  EXPECT_EQ(gone.error().code(), Errc::kNotFound);
}

TEST_F(ArenaTest, RefusesExtentsOutsideOfTheirRegion) {
  const auto region = reserve(8192);
  ASSERT_TRUE(region);
  for (const IndexEntry& bad : {entry_of(1, region->offset - 1), entry_of(1, region->offset + 7193),
                                entry_of(1, region->offset, 0), entry_of(1, UINT64_MAX - 10)}) {
    const auto refused = arena_->publish(region->id, {&bad, 1});
    ASSERT_FALSE(refused);
    EXPECT_EQ(refused.error().code(), Errc::kInvalid);
  }
  EXPECT_FALSE(reserve(kRegion + 1));
  EXPECT_FALSE(reserve(0));
  EXPECT_FALSE(Arena::create({.data_bytes = 1U << 20U}));
}

TEST_F(ArenaTest, AFullPairOfBucketsGivesUpItsOldestEntry) {
  const auto region = reserve(kRegion);
  ASSERT_TRUE(region);
  std::vector<IndexEntry> entries;
  // Names that share both buckets.
  for (std::uint64_t i = 0; i < 9; ++i) {
    entries.push_back(entry_of(i, region->offset + i * 1000));
    std::fill_n(entries.back().name.bytes.begin(), 16, std::byte{0});
    std::fill_n(entries.back().name.bytes.begin() + 8, 1, std::byte{1});
  }
  ASSERT_EQ(*arena_->publish(region->id, entries), 9U);
  EXPECT_FALSE(look_up(entries[0].name));
  for (std::uint64_t i = 1; i < 9; ++i) EXPECT_EQ(look_up(entries[i].name), entries[i]);
  arena_->retract(entries[3].name);
  EXPECT_FALSE(look_up(entries[3].name));
  EXPECT_EQ(arena_->counts().extent_bytes, 7'000U);
}

TEST_F(ArenaTest, EveryFlippedBitOfEntryAndHeaderIsSeen) {
  const auto region = reserve(kRegion);
  const IndexEntry entry = entry_of(1, region->offset);
  const EntryBytes good = encode_entry(entry, arena_->geometry());
  ASSERT_EQ(decode_entry(good, arena_->geometry()), entry);
  for (std::size_t bit = 0; bit < 8 * good.size(); ++bit) {
    EntryBytes bad = good;
    bad.at(bit / 8) ^= static_cast<std::byte>(1U << bit % 8);
    EXPECT_FALSE(decode_entry(bad, arena_->geometry())) << bit;
  }
  ArenaGeometry other = arena_->geometry();
  ++other.instance;
  EXPECT_FALSE(decode_entry(good, other));
  EXPECT_FALSE(decode_entry(std::span(good).first(63), arena_->geometry()));

  std::vector<std::byte> header(arena_->memory().begin(),
                                arena_->memory().begin() + kArenaHeaderBytes);
  ASSERT_TRUE(decode_geometry(header));
  for (std::size_t bit = 0; bit < 8 * 56; ++bit) {
    header.at(bit / 8) ^= static_cast<std::byte>(1U << bit % 8);
    EXPECT_FALSE(decode_geometry(header)) << bit;
    header.at(bit / 8) ^= static_cast<std::byte>(1U << bit % 8);
  }
}

TEST(ArenaPagesTest, AreOrdinaryWhereHugeOnesAreNotFree) {
  const auto arena = *Arena::create({.data_bytes = std::uint64_t{1} << 40U,
                                     .extent_bytes_mean = 1U << 30U,
                                     .use_huge_pages = true});

  EXPECT_FALSE(arena->has_huge_pages());
  EXPECT_EQ(arena->geometry().bytes() % (2U << 20U), 0U);
}

TEST_F(ArenaTest, RestoresADamagedEntry) {
  const auto region = reserve(kRegion);
  const IndexEntry entry = entry_of(1, region->offset);
  ASSERT_TRUE(arena_->publish(region->id, {&entry, 1}));
  for (const std::uint64_t at : bucket_offsets(entry.name, arena_->geometry())) {
    for (std::byte& byte : arena_->memory().subspan(at, kBucketBytes)) byte ^= std::byte{1};
  }
  EXPECT_FALSE(look_up(entry.name));
  arena_->restore(entry.name);
  EXPECT_EQ(look_up(entry.name), entry);
}

TEST_F(ArenaTest, NobodyElseCanMapItWritableOrChangeItsSize) {
  void* const writable =
      ::mmap(nullptr, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, arena_->descriptor(), 0);
  EXPECT_EQ(writable, MAP_FAILED);
  EXPECT_NE(::ftruncate(arena_->descriptor(), 0), 0);
  EXPECT_LT(::pwrite(arena_->descriptor(), "x", 1, 0), 0);
  void* const readable = ::mmap(nullptr, 4096, PROT_READ, MAP_SHARED, arena_->descriptor(), 0);
  ASSERT_NE(readable, MAP_FAILED);
  ::munmap(readable, 4096);
}

}  // namespace
}  // namespace samepage::imagestore
