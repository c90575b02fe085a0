// The promise under test: usage over time is told as it was, impossible numbers leave no trace, and
// a hotspot is one only when it lasts and is expected to go on, or when somebody says so outright.

#include "placer/usage.h"

#include <cmath>
#include <limits>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace samepage::placer {
namespace {

using ::testing::HasSubstr;

HostUsage host_with(Resource resource, std::initializer_list<double> parts) {
  HostUsage usage(10);
  for (const double part : parts) usage.series.at(static_cast<std::size_t>(resource)).add(part);
  return usage;
}

TEST(UsageSeries, KeepsTheNewestAndTellsTheirDistribution) {
  UsageSeries series(4);
  for (const double value : {9.0, 1.0, 2.0, 3.0, 4.0}) EXPECT_TRUE(series.add(value));

  EXPECT_EQ(series.size(), 4U);
  EXPECT_EQ(series.latest(), 4);
  EXPECT_EQ(series.mean(), 2.5);
  EXPECT_EQ(series.peak(), 4);
  EXPECT_EQ(series.quantile(0), 1);
  EXPECT_EQ(series.above(2.5, 3), 2U);
}

TEST(UsageSeries, LeavesOutNumbersThatCannotBe) {
  UsageSeries series;
  for (const double lie : {std::nan(""), std::numeric_limits<double>::infinity(), -1.0}) {
    EXPECT_FALSE(series.add(lie));
  }
  EXPECT_EQ(series.size(), 0U);
  EXPECT_EQ(series.forecast(), 0);
}

TEST(Hotspot, NeedsThreeOfFiveAndTheForecast) {
  const HotspotOptions options;
  EXPECT_FALSE(find_hotspot(host_with(Resource::kCpu, {.9, .9, .1, .1, .1}), "h", options));
  EXPECT_FALSE(find_hotspot(host_with(Resource::kCpu, {.1, .1, .9, .1, .9}), "h", options));
  const auto hot = find_hotspot(host_with(Resource::kCpu, {.8, .9, .8, .9, .9}), "h", options);
  ASSERT_TRUE(hot);
  EXPECT_EQ(hot->resource, Resource::kCpu);
  EXPECT_FALSE(hot->outright);
}

TEST(Hotspot, SaysThatSharingWasLost) {
  HostUsage usage = host_with(Resource::kMemory, {.95, .95, .95, .95, .95});
  usage.pressure.sharing_lost_pages = 400 * 256;
  EXPECT_THAT(find_hotspot(usage, "h", {})->why, HasSubstr("after losing 400 MiB of sharing"));
}

TEST(Hotspot, BelievesTheKernelAndApplications) {
  HostUsage usage(10);
  usage.pressure.memory_stalled = 0.2;
  EXPECT_THAT(find_hotspot(usage, "h", {})->why, HasSubstr("wait for memory 20 %"));
  usage.pressure.memory_stalled = 0;
  usage.pressure.violation = "web1 says that its response_ms is 300, above its limit of 200";
  const auto hot = find_hotspot(usage, "h", {});
  ASSERT_TRUE(hot);
  EXPECT_TRUE(hot->outright);
  EXPECT_THAT(hot->why, HasSubstr("web1 says"));
}

TEST(Provision, AddsWhereAVmUsesAllThatItMay) {
  UsageSeries series;
  for (int i = 0; i < 20; ++i) series.add(2.0);
  EXPECT_DOUBLE_EQ(provision(series, 4), 2.0);
  EXPECT_DOUBLE_EQ(provision(series, 2), 2.1);
}

}  // namespace
}  // namespace samepage::placer
