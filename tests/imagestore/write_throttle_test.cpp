#include "imagestore/write_throttle.h"

#include <thread>
#include <vector>

#include <gtest/gtest.h>

namespace samepage::imagestore {
namespace {

using namespace std::chrono_literals;
using std::chrono::steady_clock;

constexpr std::uint64_t kMiB = 1U << 20U;

TEST(WriteThrottleTest, NobodyWaitsWithoutALimit) {
  WriteThrottle throttle;
  const auto began = steady_clock::now();
  for (int i = 0; i < 1000; ++i) throttle.wrote(1'000 * kMiB);
  EXPECT_LT(steady_clock::now() - began, 1s);
}

TEST(WriteThrottleTest, AllWritersTogetherKeepToTheLimit) {
  WriteThrottle throttle;
  throttle.limit(8 * kMiB);
  const auto began = steady_clock::now();
  {
    std::vector<std::jthread> writers;
    for (int i = 0; i < 4; ++i) {
      writers.emplace_back([&] {
        for (int write = 0; write < 4; ++write) throttle.wrote(kMiB / 8);
      });
    }
  }
  EXPECT_GE(steady_clock::now() - began, 240ms);
}

TEST(WriteThrottleTest, WhoWaitsGoesOnWhenTheLimitIsLifted) {
  WriteThrottle throttle;
  throttle.limit(1);
  const auto began = steady_clock::now();
  {
    std::jthread writer([&] { throttle.wrote(kMiB); });
    std::this_thread::sleep_for(20ms);
    throttle.limit(0);
  }
  EXPECT_LT(steady_clock::now() - began, WriteThrottle::kWaitMax);
}

TEST(WriteThrottleTest, NoWriteWaitsForLong) {
  WriteThrottle throttle;
  throttle.limit(1);
  const auto began = steady_clock::now();
  {
    std::jthread first([&] { throttle.wrote(kMiB); });
    std::jthread second([&] { throttle.wrote(kMiB); });
  }
  EXPECT_LT(steady_clock::now() - began, WriteThrottle::kWaitMax + 2s);
}

}  // namespace
}  // namespace samepage::imagestore
