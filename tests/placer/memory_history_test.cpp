// The promise under test: how a VM's memory went is kept as long as it says something, bounded in
// points and age, and every sample at the moment when it was taken.
#include "placer/memory_history.h"

#include <gtest/gtest.h>

#include "core/database.h"
#include "placer/schema.h"
#include "tests/fakes/fake_clock.h"

namespace samepage::placer {
namespace {

class MemoryHistoryTest : public ::testing::Test {
 protected:
  MemoryHistoryTest() { EXPECT_TRUE(migrate_schema(database_)); }

  MemorySample sample(std::uint64_t own, const std::string& host = "host1",
                      const std::string& vm = "fork") {
    return {.vm = {vm},
            .host = host,
            .at = clock_.today(),
            .shares = {.own = own, .of_template = 40'000 - own, .ksm = 7}};
  }

  void keep(std::uint64_t own, const std::string& host = "host1") {
    ASSERT_TRUE(history_.add({sample(own, host)}));
    clock_.advance(std::chrono::seconds(60));
  }

  std::vector<std::uint64_t> owned() {
    std::vector<std::uint64_t> pages;
    const auto newest = history_.newest({"fork"}, 10).value();
    for (const MemorySample& kept : newest) pages.push_back(kept.shares.own);
    return pages;
  }

  Database database_ = Database::open({.path = ":memory:"}).value();
  fakes::FakeClock clock_;
  MemoryHistory history_{
      {.age_max = std::chrono::hours(1), .points_per_vm_max = 3}, database_, clock_};
};

TEST_F(MemoryHistoryTest, KeepsASampleWhole) {
  const MemorySample kept = sample(1'000);
  ASSERT_TRUE(history_.add({kept, sample(5, "host2", "other")}));

  const MemorySample found = history_.newest({"fork"}, 10).value().at(0);

  EXPECT_EQ(found.vm, kept.vm);
  EXPECT_EQ(found.host, "host1");
  EXPECT_EQ(found.at, kept.at);
  EXPECT_EQ(found.shares, kept.shares);
  EXPECT_EQ(owned().size(), 1U);
}

TEST_F(MemoryHistoryTest, LeavesOutWhatSaysNothingNew) {
  keep(1'000);
  keep(1'100);
  keep(1'256);
  EXPECT_EQ(owned(), (std::vector<std::uint64_t>{1'256, 1'000}));
  keep(1'256, "host2");
  clock_.advance(std::chrono::minutes(10));
  keep(1'257, "host2");
  EXPECT_EQ(owned(), (std::vector<std::uint64_t>{1'257, 1'256, 1'256}));
}

TEST_F(MemoryHistoryTest, SamplesThatCameTogetherKeepTheirMoments) {
  const MemorySample early = sample(1'000);
  clock_.advance(std::chrono::minutes(5));
  const MemorySample late = sample(9'000);
  clock_.advance(std::chrono::minutes(5));

  ASSERT_TRUE(history_.add({early, late}));

  const auto newest = history_.newest({"fork"}, 10).value();
  ASSERT_EQ(newest.size(), 2U);
  EXPECT_EQ(newest[0].at, late.at);
  EXPECT_EQ(newest[1].at, early.at);
}

TEST_F(MemoryHistoryTest, IsBoundedByPointsAndAge) {
  for (const std::uint64_t own : {1'000, 2'000, 3'000, 4'000}) keep(own);
  EXPECT_EQ(owned(), (std::vector<std::uint64_t>{4'000, 3'000, 2'000}));
  clock_.advance(std::chrono::minutes(58));  // 2'000 is older than an hour.
  ASSERT_TRUE(history_.add({sample(5, "host2", "other")}));
  EXPECT_EQ(owned(), (std::vector<std::uint64_t>{4'000, 3'000}));
}

}  // namespace
}  // namespace samepage::placer
