#include "migrator/intake_brake.h"

#include <thread>

#include <gtest/gtest.h>

#include "tests/fakes/fake_byte_stream.h"

namespace samepage::migrator {
namespace {

using fakes::FakeByteStream;
using std::chrono::milliseconds;

class IntakeBrakeTest : public testing::Test {
 protected:
  IntakeBrakeTest() {
    auto [ours, theirs] = FakeByteStream::connect();
    qemu_ = std::move(theirs);
    stream_ = std::make_unique<BrakedStream>(std::move(ours), brake_);
    EXPECT_TRUE(qemu_->write_all(std::vector<std::byte>(kBytes), in_time()));
  }

  static Deadline in_time() { return std::chrono::steady_clock::now() + std::chrono::minutes(1); }

  std::size_t read_all() {
    std::size_t sum = 0;
    while (sum < kBytes) sum += stream_->read_some(buffer_, in_time()).value();
    return sum;
  }

  static constexpr std::size_t kBytes = 128U << 10U;
  std::vector<std::byte> buffer_ = std::vector<std::byte>(kBytes);
  IntakeBrake brake_;
  std::unique_ptr<FakeByteStream> qemu_;
  std::unique_ptr<BrakedStream> stream_;
};

TEST_F(IntakeBrakeTest, BoundsWhatIsUnderWayAndLosesNothing) {
  brake_.took(IntakeBrake::kUnderWayBytes + 1);
  EXPECT_FALSE(brake_.is_drained());
  EXPECT_TRUE(stream_->read_some(std::span(buffer_).first(1), in_time())) << "not before press()";
  brake_.press();
  brake_.ease();
  const auto soon = std::chrono::steady_clock::now() + milliseconds(1);
  EXPECT_EQ(stream_->read_some(buffer_, soon).error().code(), Errc::kTimedOut);

  const std::jthread delivering([this] { brake_.delivered(2, 0); });
  EXPECT_EQ(stream_->read_some(buffer_, in_time()), kBytes - 1);
}

TEST_F(IntakeBrakeTest, PressedItLetsNothingBeReadUntilItIsEased) {
  brake_.ease();
  EXPECT_FALSE(brake_.is_used());
  brake_.press();
  const auto soon = std::chrono::steady_clock::now() + milliseconds(1);
  EXPECT_EQ(stream_->read_some(buffer_, soon).error().code(), Errc::kTimedOut);

  const std::jthread easing([this] { brake_.ease(); });
  EXPECT_EQ(stream_->read_some(buffer_, in_time()), kBytes);
}

TEST_F(IntakeBrakeTest, NobodyWaitsOnceAConnectionIsShutDown) {
  brake_.press();
  const std::jthread ending([this] { stream_->shut_down(); });
  const auto began = std::chrono::steady_clock::now();
  static_cast<void>(stream_->read_some(buffer_, in_time()));
  EXPECT_LT(std::chrono::steady_clock::now() - began, std::chrono::seconds(30));
}

TEST_F(IntakeBrakeTest, ALinkThatNeedsMoreMayHaveItUnderWay) {
  constexpr std::uint64_t kLink = 3 * IntakeBrake::kUnderWayBytes;
  constexpr auto kTaken = static_cast<std::uint64_t>(kLink / IntakeBrake::kTakenShare);
  brake_.took(kTaken + kLink + 1);
  brake_.delivered(kTaken, kLink);
  EXPECT_FALSE(brake_.is_drained());
  brake_.delivered(1, kLink);
  EXPECT_TRUE(brake_.is_drained());
}

TEST_F(IntakeBrakeTest, NoLinkMayHaveMoreUnderWayThanTheTargetTakesAtOnce) {
  constexpr std::uint64_t kTaken = 6 * IntakeBrake::kUnderWayBytes;
  constexpr std::uint64_t kLink = 100 * IntakeBrake::kUnderWayBytes;
  constexpr auto kAtOnce = static_cast<std::uint64_t>(kTaken * IntakeBrake::kTakenShare);
  brake_.took(kTaken + kAtOnce + 1);
  brake_.delivered(kTaken, kLink);
  EXPECT_FALSE(brake_.is_drained());
  brake_.delivered(1, kLink);
  EXPECT_TRUE(brake_.is_drained());
}

TEST_F(IntakeBrakeTest, ATargetThatTakesLittleLeavesTheLeastBound) {
  brake_.took(IntakeBrake::kUnderWayBytes + 1);
  brake_.delivered(0, 100 * IntakeBrake::kUnderWayBytes);
  EXPECT_FALSE(brake_.is_drained());
  brake_.delivered(1, 100 * IntakeBrake::kUnderWayBytes);
  EXPECT_TRUE(brake_.is_drained());
}

TEST_F(IntakeBrakeTest, ReleasedItBoundsNothing) {
  brake_.press();
  brake_.took(2 * IntakeBrake::kUnderWayBytes);
  const std::jthread releasing([this] { brake_.release(); });
  EXPECT_EQ(stream_->read_some(buffer_, in_time()), kBytes);
}

TEST_F(IntakeBrakeTest, KnowsWhatQemuMayBelieveUntilItHasForgotten) {
  constexpr double kSpans = std::chrono::seconds(1) / IntakeBrake::kSpan;
  EXPECT_EQ(brake_.believed_speed_max(), 0);
  brake_.took(kBytes);
  EXPECT_EQ(brake_.believed_speed_max(), kSpans * kBytes / 2)
      << "QEMU counts for two spans at least";
  std::this_thread::sleep_for(5 * IntakeBrake::kSpan);
  EXPECT_LT(brake_.believed_speed_max(), kSpans * kBytes / 2);
  EXPECT_GT(brake_.believed_speed_max(), 0) << "it could not write meanwhile, and counts all of it";
  std::this_thread::sleep_for(10 * IntakeBrake::kSpan);
  EXPECT_EQ(brake_.believed_speed_max(), 0);
}

TEST_F(IntakeBrakeTest, PausesWhetherPressedOrNotUntilTheGuestStops) {
  brake_.release();
  brake_.pause(std::chrono::minutes(10));
  const auto soon = std::chrono::steady_clock::now() + milliseconds(1);
  EXPECT_EQ(stream_->read_some(buffer_, soon).error().code(), Errc::kTimedOut);

  const std::jthread stopping([this] { brake_.give_way(); });
  EXPECT_EQ(stream_->read_some(buffer_, in_time()), kBytes);
  brake_.pause(std::chrono::minutes(10));
  EXPECT_TRUE(brake_.wait(in_time()));
}

TEST_F(IntakeBrakeTest, IsUsedOncePressedReleasedOrOutOfTheWay) {
  EXPECT_FALSE(brake_.is_used());
  brake_.pause(milliseconds(1));
  EXPECT_FALSE(brake_.is_used());
  brake_.give_way();
  EXPECT_TRUE(brake_.is_used());
}

TEST_F(IntakeBrakeTest, CannotBePressedOnceReleased) {
  brake_.release();
  brake_.press();
  brake_.took(2 * IntakeBrake::kUnderWayBytes);
  EXPECT_EQ(stream_->read_some(buffer_, in_time()), kBytes);
}

}  // namespace
}  // namespace samepage::migrator
