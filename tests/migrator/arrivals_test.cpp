#include "migrator/arrivals.h"

#include <memory>

#include <gtest/gtest.h>

#include "migrator/relay.h"

namespace samepage::migrator {
namespace {

using std::chrono::milliseconds;

std::shared_ptr<Arrival> arrival(std::uint64_t sequence) {
  auto made = std::make_shared<Arrival>();
  made->header.sequence = sequence;
  return made;
}

TEST(ArrivalsTest, AreWrittenInOrderOnceComplete) {
  Arrivals arrivals;
  for (std::uint64_t i = 0; i < 3; ++i) ASSERT_TRUE(arrivals.add(arrival(i)));
  const auto first = arrivals.take();
  const auto second = arrivals.take();
  arrivals.complete(*second);
  arrivals.ask(*first);

  EXPECT_EQ(arrivals.pop(milliseconds(5)).error().code(), Errc::kTimedOut);
  EXPECT_EQ(arrivals.asked(1).error().code(), Errc::kCorrupt);
  EXPECT_EQ(arrivals.asked(7).error().code(), Errc::kCorrupt);
  EXPECT_EQ(arrivals.asked(0).value(), first);
  arrivals.complete(*first);
  EXPECT_EQ(arrivals.pop(milliseconds(5)).value(), first);
  EXPECT_EQ(arrivals.pop(milliseconds(5)).value(), second);
  arrivals.complete(*arrivals.take());
  arrivals.end_input();
  EXPECT_EQ(arrivals.pop(milliseconds(5)).value()->header.sequence, 2U);
  EXPECT_EQ(arrivals.pop(milliseconds(5)).value(), nullptr);
  EXPECT_EQ(arrivals.take(), nullptr);
}

TEST(ArrivalsTest, AreBoundedAndOweNoPagesForEver) {
  Arrivals arrivals;
  for (std::uint64_t i = 0; i < kBatchesInFlightMax; ++i) {
    ASSERT_TRUE(arrivals.add(arrival(i)));
  }
  EXPECT_EQ(arrivals.add(arrival(kBatchesInFlightMax)).error().code(), Errc::kCorrupt);

  arrivals.ask(*arrivals.take());
  arrivals.end_pages();
  EXPECT_EQ(arrivals.pop(std::chrono::hours(1)).error().code(), Errc::kUnavailable);
}

}  // namespace
}  // namespace samepage::migrator
