// The promise under test: a scan hashes each populated page once, counts the zero ones, and keeps
// to its share of a core. The guest is a fake.

#include "fingerprinter/page_scanner.h"

#include <random>

#include <gtest/gtest.h>

#include "tests/fakes/fake_guest_memory.h"

namespace samepage::fingerprinter {
namespace {

using fakes::FakeGuestMemory;

constexpr HashSeed kSeed{77};

class StepClock final : public Clock {
 public:
  std::chrono::steady_clock::time_point now() const override { return now_; }
  std::chrono::system_clock::time_point today() const override { return {}; }
  void advance(std::chrono::nanoseconds by) { now_ += by; }

 private:
  std::chrono::steady_clock::time_point now_;
};

TEST(PageScannerTest, HashesEveryPopulatedPageOnce) {
  const auto random_seed = std::random_device{}();
  RecordProperty("seed", static_cast<int>(random_seed));
  SCOPED_TRACE(random_seed);
  std::mt19937_64 random(random_seed);
  FakeGuestMemory memory(5000);
  for (std::uint64_t page = 0; page < 5000; ++page) {
    // Runs and gaps of all lengths around the batch's.
    if (random() % 3 == 0) page += random() % 40;
    if (page < 5000) memory.put(page, random() % 8);
  }

  const Scan found = scan(memory, kSeed).value();

  EXPECT_EQ(found.pages, 5000U);
  EXPECT_EQ(found.zero + found.hashed.size(), memory.held.size());
  auto next = found.hashed.begin();
  for (const auto& [page, bytes] : memory.held) {
    if (is_zero(bytes)) continue;
    ASSERT_NE(next, found.hashed.end());
    EXPECT_EQ(next->page, page);
    EXPECT_EQ(next->hash, hash_page(bytes, kSeed));
    ++next;
  }
  EXPECT_EQ(next, found.hashed.end());
}

TEST(PageScannerTest, LeavesOutAPageThatCannotBeRead) {
  FakeGuestMemory memory(100);
  for (std::uint64_t page = 0; page < 100; ++page) memory.put(page, page + 1);
  memory.unreadable = {42};

  const Scan found = scan(memory, kSeed).value();

  EXPECT_EQ(found.hashed.size(), 99U);
  for (const ScannedPage& page : found.hashed) EXPECT_NE(page.page, 42U);
}

TEST(PageScannerTest, AGuestThatEndsIsNotFound) {
  FakeGuestMemory memory(1000);
  for (std::uint64_t page = 0; page < 1000; ++page) memory.put(page, page + 1);
  for (const std::uint64_t reads : {0, 1, 3}) {
    memory.reads_left = reads;
    EXPECT_EQ(scan(memory, kSeed).error().code(), Errc::kNotFound);
  }
}

TEST(PageScannerTest, KeepsToItsShareOfACore) {
  constexpr std::uint64_t kMany = 51'200;
  FakeGuestMemory memory(kMany);
  for (std::uint64_t page = 0; page < kMany; page += 32) memory.put(page, 1);
  StepClock clock;
  std::chrono::nanoseconds paused{0};
  memory.on_read = [&clock] { clock.advance(std::chrono::milliseconds(1)); };
  const auto pause = [&](std::chrono::nanoseconds duration) {
    clock.advance(duration);
    paused += duration;
  };

  const Scan found =
      scan(memory, kSeed, {.cpu_share = 0.1, .clock = &clock, .pause = pause}).value();

  const double busy = found.seconds - std::chrono::duration<double>(paused).count();
  EXPECT_NEAR(busy / found.seconds, 0.1, 0.005);
}

TEST(PageScannerTest, PausesNeverWithAWholeCore) {
  FakeGuestMemory memory(1000);
  for (std::uint64_t page = 0; page < 1000; ++page) memory.put(page, 1);
  StepClock clock;
  memory.on_read = [&clock] { clock.advance(std::chrono::seconds(1)); };

  const auto found = scan(memory, kSeed, {.clock = &clock, .pause = [](auto) { FAIL(); }});

  EXPECT_EQ(found.value().seconds, 4);
}

TEST(PageScannerTest, StopsAtTheNextBatch) {
  FakeGuestMemory memory(10000);
  for (std::uint64_t page = 0; page < 10000; ++page) memory.put(page, 1);
  std::stop_source stop;
  int reads = 0;
  memory.on_read = [&] {
    if (++reads == 3) stop.request_stop();
  };

  const auto found = scan(memory, kSeed, {.stop = stop.get_token()});

  EXPECT_EQ(found.error().code(), Errc::kUnavailable);
  EXPECT_EQ(reads, 3);
}

TEST(PageScannerTest, ReadingAheadFindsTheSame) {
  FakeGuestMemory memory(5000);
  for (std::uint64_t page = 0; page < 5000; page += 1 + page % 3) memory.put(page, page % 97);

  const Scan alone = scan(memory, kSeed).value();
  const Scan ahead = scan(memory, kSeed, {.cpu_share = 2}).value();

  ASSERT_EQ(ahead.hashed.size(), alone.hashed.size());
  EXPECT_EQ(ahead.zero, alone.zero);
  for (std::size_t i = 0; i < alone.hashed.size(); ++i) {
    ASSERT_EQ(ahead.hashed[i].page, alone.hashed[i].page);
    ASSERT_EQ(ahead.hashed[i].hash, alone.hashed[i].hash);
  }
}

TEST(PageScannerTest, ReadingAheadEndsWithTheGuest) {
  FakeGuestMemory memory(5000);
  for (std::uint64_t page = 0; page < 5000; ++page) memory.put(page, page + 1);
  for (const std::uint64_t reads : {0, 1, 2, 5}) {
    memory.reads_left = reads;
    EXPECT_EQ(scan(memory, kSeed, {.cpu_share = 2}).error().code(), Errc::kNotFound);
  }
}

TEST(PageScannerTest, RefusesAnImpossibleShare) {
  FakeGuestMemory memory(1);
  for (const double share : {0.0, -1.0, 2.5}) {
    EXPECT_EQ(scan(memory, kSeed, {.cpu_share = share}).error().code(), Errc::kInvalid);
  }
}

}  // namespace
}  // namespace samepage::fingerprinter
