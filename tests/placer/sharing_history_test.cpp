// The promise under test: what was predicted and what came of it is kept side by side, a point for
// each pass of KSM, and no more points than there is room for.
#include "placer/sharing_history.h"

#include <gtest/gtest.h>

#include "core/database.h"
#include "placer/schema.h"
#include "tests/fakes/fake_clock.h"
#include "tests/placer/synthetic_fleet.h"

namespace samepage::placer {
namespace {

class SharingHistoryTest : public ::testing::Test {
 protected:
  SharingHistoryTest() {
    EXPECT_TRUE(migrate_schema(database_));
    fleet_.host("host1", 4'096)
        .vm("a", "host1", {{.pool = "web", .mib = 40}})
        .vm("b", "host1", {{.pool = "web", .mib = 40}});
    Host& host = fleet_.fleet().hosts.front();
    host.memory = HostMemory{.resident_pages = 20'000, .distinct_frames = 9'000};
    host.memory->ksm_runs = true;
  }

  HostMemory& memory() { return *fleet_.fleet().hosts.front().memory; }

  Database database_ = Database::open({.path = ":memory:"}).value();
  fakes::FakeClock clock_;
  SharingHistory history_{{.points_per_host_max = 3}, database_, clock_};
  SyntheticFleet fleet_;
};

TEST_F(SharingHistoryTest, KeepsAPointForEachPassOfKsm) {
  for (const std::uint64_t pass : {1, 1, 2, 3, 4, 5}) {
    memory().ksm_full_scans = pass;
    ASSERT_TRUE(history_.note(fleet_.fleet(), "host1"));
    clock_.advance(std::chrono::seconds(60));
  }

  const auto points = history_.newest("", 10).value();

  ASSERT_EQ(points.size(), 3U);
  EXPECT_EQ(points[0].ksm_full_scans, 5U);
  EXPECT_EQ(points[2].ksm_full_scans, 3U);
  EXPECT_EQ(points[0].host, "host1");
  EXPECT_EQ(points[0].vms, 2U);
  EXPECT_EQ(points[0].achieved_pages, 11'000U);
  EXPECT_LT(points[0].low_pages, points[0].predicted_pages);
  EXPECT_GT(points[0].high_pages, 40.0 * kPagesPerMib);
  EXPECT_TRUE(history_.newest("host2", 10).value().empty());
}

TEST_F(SharingHistoryTest, KeepsNothingThatMeansNothing) {
  memory().ksm_runs = false;
  ASSERT_TRUE(history_.note(fleet_.fleet(), "host1"));
  memory().ksm_runs = true;
  fleet_.last().fingerprint = nullptr;
  ASSERT_TRUE(history_.note(fleet_.fleet(), "host1"));
  ASSERT_TRUE(history_.note(fleet_.fleet(), "host7"));

  EXPECT_TRUE(history_.newest("", 10).value().empty());
}

}  // namespace
}  // namespace samepage::placer
