// The promise under test: a census that is kept up to date page by page says what a fresh scan
// would say, leaves pages that keep changing out, and a watch finds every change of a real process.

#include "fingerprinter/census.h"

#include <random>

#include <gtest/gtest.h>

#include "fingerprinter/guest_watch.h"
#include "tests/fakes/fake_guest_memory.h"
#include "tests/fingerprinter/held_memory.h"
#include "tests/fingerprinter/page_sets.h"

namespace samepage::fingerprinter {
namespace {

using fakes::FakeGuestMemory;

constexpr HashSeed kSeed{5};

bool same_sketch(const Fingerprint& a, const Fingerprint& b) {
  const Sketch::Shape shape = Sketch::common(a.sketch().shape(), b.sketch().shape());
  const Sketch left = a.sketch().reduced(shape);
  const Sketch right = b.sketch().reduced(shape);
  for (std::size_t i = 0; i < Sketch::kBands; ++i) {
    if (!std::ranges::equal(left.band(i), right.band(i))) return false;
  }
  return true;
}

void look_at(Census& census, FakeGuestMemory& memory, const std::vector<PageRun>& runs) {
  std::vector<PageRun> populated;
  for (const PageRun& run : runs) {
    const auto within = memory.populated_within(run).value();
    populated.insert(populated.end(), within.begin(), within.end());
  }
  census.take(runs, scan_runs(memory, populated, kSeed).value());
}

TEST(HashCountsTest, CountsLikeAMapThroughGrowthAndRemoval) {
  const auto seed = std::random_device{}();
  SCOPED_TRACE(seed);
  std::mt19937_64 random(seed);
  const Hashes hashes = random_hashes(3000, random);
  std::map<PageHash, std::uint32_t> truth;
  HashCounts counts;
  for (int i = 0; i < 60'000; ++i) {
    const PageHash hash = hashes[random() % hashes.size()];
    if (random() % 2 == 0 && truth.contains(hash)) {
      const std::uint32_t left = --truth[hash];
      ASSERT_EQ(counts.remove(hash), left);
      if (left == 0) truth.erase(hash);
    } else {
      ASSERT_EQ(counts.add(hash), ++truth[hash]);
    }
  }
  EXPECT_EQ(counts.size(), truth.size());
  counts.for_each([&](PageHash hash, std::uint32_t count) { EXPECT_EQ(truth[hash], count); });
}

TEST(CensusTest, AfterAnyChangesItSaysWhatAFreshScanSays) {
  const auto seed = std::random_device{}();
  SCOPED_TRACE(seed);
  std::mt19937_64 random(seed);
  constexpr std::uint64_t kPages = 4000;
  FakeGuestMemory memory(kPages);
  for (std::uint64_t page = 0; page < kPages; ++page) {
    if (random() % 4 != 0) memory.put(page, random() % 2000);
  }
  Census census(kPages);
  look_at(census, memory, {{0, kPages}});
  for (int pass = 0; pass < 20; ++pass) {
    std::vector<PageRun> runs;
    for (std::uint64_t page = random() % 50; page < kPages; page += 1 + random() % 100) {
      if (!runs.empty() && runs.back().first + runs.back().count == page) continue;
      runs.push_back({page, 1});
      if (random() % 5 == 0) {
        memory.held.erase(page);
      } else {
        memory.put(page, random() % 2000);
      }
    }
    look_at(census, memory, runs);
  }
  // Seen unchanged once more, everything is settled.
  look_at(census, memory, {});

  const Fingerprint kept = census.fingerprint();
  const Fingerprint fresh = Fingerprint::of(scan(memory, kSeed).value());

  EXPECT_EQ(kept.counts(), fresh.counts());
  EXPECT_FALSE(census.has_unsettled());
  EXPECT_TRUE(same_sketch(kept, fresh));
}

TEST(CensusTest, APageThatChangedIsCountedApartUntilItIsSeenUnchanged) {
  FakeGuestMemory memory(10);
  memory.put(1, 11);
  memory.put(2, 12);
  Census census(10);
  look_at(census, memory, {{0, 10}});
  EXPECT_EQ(census.fingerprint().counts().unique, 2U);

  memory.put(2, 13);
  memory.put(3, 14);  // Held nothing before: that is no change.
  look_at(census, memory, {{2, 2}});
  EXPECT_EQ(census.fingerprint().counts().unique, 2U);
  EXPECT_EQ(census.fingerprint().counts().unsettled, 1U);
  EXPECT_EQ(census.fingerprint().counts().present(), 3U);

  memory.put(2, 15);
  look_at(census, memory, {{2, 1}});
  EXPECT_EQ(census.fingerprint().counts().unsettled, 1U);

  look_at(census, memory, {{2, 1}});  // Written, with the same content.
  EXPECT_EQ(census.fingerprint().counts().unsettled, 0U);
  EXPECT_EQ(census.fingerprint().counts().unique, 3U);
}

TEST(CensusTest, AGuestThatGrowsGetsALargerSketchOnceItIsWorthIt) {
  std::mt19937_64 random(1);
  constexpr std::uint64_t kPages = 200'000;
  Census census(kPages);
  const auto fill = [&](std::uint64_t first, std::uint64_t count) {
    Scan found;
    for (std::uint64_t i = 0; i < count; ++i) found.hashed.push_back({first + i, {random()}});
    const PageRun run{first, count};
    census.take({&run, 1}, found);
  };
  fill(0, 100);
  const Sketch::Shape small = census.fingerprint(2048).sketch().shape();
  fill(100, 20);
  EXPECT_EQ(census.fingerprint(2048).sketch().shape(), small);
  fill(120, kPages - 120);
  const Fingerprint grown = census.fingerprint(2048);
  EXPECT_NE(grown.sketch().shape(), small);
  EXPECT_LE(grown.serialize().size(), 2048U);
}

constexpr std::uint64_t kHeld = 3001;

TEST(CensusTest, ForgetsPagesThatTheKernelTookAway) {
  FakeGuestMemory memory(8);
  for (std::uint64_t page = 0; page < 8; ++page) memory.put(page, page + 1);
  Census census(8);
  look_at(census, memory, {{0, 8}});
  memory.put(6, 70);
  look_at(census, memory, {{6, 1}});
  ASSERT_EQ(census.fingerprint().counts().unsettled, 1U);

  EXPECT_EQ(census.forget(std::vector<PageRun>{{0, 2}, {6, 1}}), 3U);
  EXPECT_EQ(census.forget(std::vector<PageRun>{{0, 2}, {6, 1}}), 0U);

  EXPECT_FALSE(census.has_unsettled());
  EXPECT_EQ(census.fingerprint().counts().present(), 5U);
  EXPECT_EQ(census.fingerprint().counts().unsettled, 0U);
}

TEST(GuestWatchTest, FollowsARealProcess) {
  HeldMemory held(
      Holding::kPrivate, kHeld,
      [](std::byte* ram) {
        for (std::uint64_t page = 0; page < 1000; ++page) write_page(ram, page, page % 900);
      },
      [](std::byte* ram) {
        for (std::uint64_t page = 500; page < 1200; ++page) write_page(ram, page, page + 7);
      });
  const auto watch = GuestWatch::open(held.vm(), kSeed).value();
  const Fingerprint first = watch->rescan().value();
  EXPECT_EQ(first.counts().unique, 899U);
  EXPECT_EQ(first.counts().duplicate, 99U);
  EXPECT_EQ(first.counts().zero, 2U);
  EXPECT_TRUE(watch->watches(held.vm(), kSeed));
  EXPECT_FALSE(watch->watches(held.vm(), {6}));
  VmInfo resized = held.vm();
  resized.memory_bytes *= 2;
  EXPECT_FALSE(watch->watches(resized, kSeed));

  held.act();
  std::uint64_t seen = 0;
  for (std::uint64_t pass = 0; pass < 3 * kRotationCalls; ++pass) {
    seen = watch->rescan().value().counts().unique;
  }

  const auto memory = open_guest_memory(held.vm()).value();
  const Fingerprint fresh = Fingerprint::of(scan(*memory, kSeed).value());
  EXPECT_EQ(seen, fresh.counts().unique);
  EXPECT_TRUE(same_sketch(watch->rescan().value(), fresh));

  held.end();
  EXPECT_EQ(watch->rescan().error().code(), Errc::kNotFound);
}

TEST(GuestWatchTest, WhatChangedSettlesInTheNextPassWhateverTheTracker) {
  HeldMemory held(
      Holding::kPrivate, kHeld,
      [](std::byte* ram) {
        for (std::uint64_t page = 0; page < kHeld; ++page) write_page(ram, page, page + 1);
      },
      [](std::byte* ram) {
        for (std::uint64_t page = 0; page < kHeld; ++page) write_page(ram, page, page + 10'000);
      });
  const auto watch = GuestWatch::open(held.vm(), kSeed).value();
  // The guest is no longer young, and the pass that looks at everything is not due for a while.
  for (int pass = 0; pass < 5; ++pass) watch->rescan().value();

  held.act();
  std::uint64_t unsettled = 0;
  for (std::uint64_t pass = 0; pass < kRotationCalls; ++pass) {
    unsettled += watch->rescan().value().counts().unsettled;
  }

  EXPECT_EQ(unsettled, kHeld);
  EXPECT_EQ(watch->rescan().value().counts().unsettled, 0U);
  EXPECT_EQ(watch->rescan().value().counts().unique, kHeld);
}

}  // namespace
}  // namespace samepage::fingerprinter
