#include "migrator/link_meter.h"

#include <gtest/gtest.h>

namespace samepage::migrator {
namespace {

LinkMeter::Time at_ms(double ms) {
  return LinkMeter::Time(std::chrono::duration_cast<LinkMeter::Time::duration>(
      std::chrono::duration<double, std::milli>(ms)));
}

/// Sends batches one behind the other over a link of this rate and delay.
LinkMeter measured(double bytes_per_ms, double delay_ms) {
  LinkMeter meter;
  constexpr std::size_t kBytes = 100'000;
  meter.sent(kBytes, at_ms(0));
  meter.arrived(at_ms(delay_ms + kBytes / bytes_per_ms));
  double free_at = 1000;
  for (int i = 0; i < 100; ++i) {
    meter.sent(kBytes, at_ms(1000));
    meter.sent(kBytes, at_ms(1000));
    free_at += kBytes / bytes_per_ms;
    meter.arrived(at_ms(free_at + delay_ms));
    free_at += kBytes / bytes_per_ms;
    meter.arrived(at_ms(free_at + delay_ms));
  }
  return meter;
}

TEST(LinkMeterTest, LetsLittleMoreBeUnderWayThanTheLinkNeeds) {
  EXPECT_EQ(LinkMeter().window(), LinkMeter::kWindowFirst);

  const LinkMeter fast = measured(125'000, 1);
  EXPECT_NEAR(fast.bytes_per_second(), 125e6, 10e6);
  EXPECT_NEAR(static_cast<double>(fast.window()), 125e6 * 0.022, 0.5e6);

  const LinkMeter slow = measured(1'000, 1);
  EXPECT_NEAR(slow.bytes_per_second(), 1e6, 0.1e6);
  EXPECT_EQ(slow.window(), LinkMeter::kWindowMin);

  const LinkMeter far = measured(125'000, 100);
  EXPECT_GT(far.window(), 12U << 20U);
}

TEST(LinkMeterTest, SmallBatchesTellNothingOfTheRate) {
  LinkMeter meter;
  for (int i = 0; i < 50; ++i) {
    meter.sent(200, at_ms(10 * i));
    meter.arrived(at_ms(10 * i + 5));
  }
  EXPECT_EQ(meter.bytes_per_second(), 0);
  EXPECT_EQ(meter.window(), LinkMeter::kWindowFirst);
}

}  // namespace
}  // namespace samepage::migrator
