// The promise under test: with several streams and with post-copy, too, a guest arrives whole and
// never runs on two hosts; and what cannot be taken back any more is not taken back.

#include <chrono>
#include <future>
#include <utility>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/migrator/session_harness.h"

namespace samepage::migrator {
namespace {

using ::testing::HasSubstr;

SessionHarness::Options with(const MigrateMode& mode) {
  SessionHarness::Options options;
  options.source = [mode](SourceOptions& source) { source.mode = mode; };
  return options;
}

TEST(SessionModesTest, EveryStreamArrivesAndTheMainOneFirst) {
  SessionHarness two(with({.streams = 3, .postcopy = false}));
  two.run();
  EXPECT_EQ(two.source_outcome.runs_on, Side::kTarget);
  EXPECT_EQ(two.source_outcome.relay.stream_bytes, 2'000'000U + 3U * 300'000U);
  two.expect_runs_once();
  EXPECT_TRUE(two.leaves_no_sockets());
}

TEST(SessionModesTest, SeveralStreamsThatBreakLeaveTheGuestOnTheSource) {
  SessionHarness two(with({.streams = 2, .postcopy = false}));
  two.source_host.at(Moment::kHalfStreamed, [&] { two.wire->cut_all(); });
  two.run();
  EXPECT_EQ(two.source_outcome.runs_on, Side::kSource);
  two.expect_runs_once();
}

TEST(SessionModesTest, MoreStreamsThanThereMayBeAreRefused) {
  SourceOptions options;
  options.session = "0123456789abcdef";
  options.vm = kVm;
  options.target_port = 1;
  options.mode.streams = MigrateMode::kStreamsMax + 1;
  RunningLedger ledger;
  SessionHarness two({});
  EXPECT_EQ(SourceMigration::create(options, two.source_host, {}).error().code(), Errc::kInvalid);
  two.run();
}

TEST(SessionModesTest, AfterTheSwitchTheTargetRunsTheGuestAndPullsTheRest) {
  SessionHarness two(with({.streams = 0, .postcopy = true}));
  two.run();
  EXPECT_EQ(two.source_outcome.runs_on, Side::kTarget)
      << two.source_outcome.error.value_or(Error(Errc::kIo, "")).message();
  EXPECT_FALSE(two.source_outcome.error);
  two.expect_runs_once();
}

TEST(SessionModesTest, AGuestThatConvergesBeforeTheSwitchStays) {
  auto options = with({.streams = 0, .postcopy = true});
  options.converges = true;
  const auto mode = options.source;
  options.source = [mode](SourceOptions& source) {
    mode(source);
    source.switch_max = std::chrono::milliseconds(50);
  };
  SessionHarness two(std::move(options));
  two.run();
  EXPECT_EQ(two.source_outcome.runs_on, Side::kSource);
  EXPECT_EQ(two.target_outcome.copy, Copy::kNone);
  two.expect_runs_once();
}

TEST(SessionModesTest, AfterTheSwitchACancellationComesTooLate) {
  SessionHarness two(with({.streams = 0, .postcopy = true}));
  two.source_host.at(Moment::kGuestStopped, [&] { two.source->cancel(); });
  two.run();
  EXPECT_EQ(two.source_outcome.runs_on, Side::kTarget);
  two.expect_runs_once();
}

TEST(SessionModesTest, BeforeTheSwitchACancellationKeepsTheGuest) {
  SessionHarness two(with({.streams = 0, .postcopy = true}));
  std::promise<void> stops;
  two.on_progress = [&, told = false](const SourceProgress& progress) mutable {
    if (progress.phase == SourcePhase::kStopping && !std::exchange(told, true)) stops.set_value();
  };
  // No job has begun, so nothing can switch before the cancellation is known.
  two.source_host.at(Moment::kPrepared, [&] {
    two.source->cancel();
    EXPECT_EQ(stops.get_future().wait_for(std::chrono::seconds(20)), std::future_status::ready);
  });
  two.run();
  EXPECT_EQ(two.source_outcome.runs_on, Side::kSource);
  two.expect_runs_once();
}

TEST(SessionModesTest, APostcopyThatBreaksOffIsNobodysToResume) {
  SessionHarness two(with({.streams = 0, .postcopy = true}));
  two.source_host.at(Moment::kGuestStopped, [&] { two.wire->cut_all(); });
  two.run();
  EXPECT_EQ(two.source_outcome.runs_on, Side::kUnknown);
  EXPECT_THAT(two.source_outcome.error->message(), HasSubstr("post-copy broke off"));
  EXPECT_EQ(two.state_on(two.source_host), VmState::kOther);
  EXPECT_FALSE(two.ledger.ever_twice());
}

TEST(SessionModesTest, APausedGuestIsNotMovedByPostcopy) {
  auto options = with({.streams = 0, .postcopy = true});
  options.vm_state = VmState::kPaused;
  options.target = [](TargetOptions& target) { target.source_max = std::chrono::milliseconds(50); };
  SessionHarness two(std::move(options));
  two.run();
  EXPECT_EQ(two.source_outcome.runs_on, Side::kSource);
  EXPECT_EQ(two.source_outcome.error->code(), Errc::kInvalid);
}

TEST(SessionModesTest, WhatIsNotLibvirtsProtocolCannotBeHeldBackSoItIsCut) {
  auto options = with({.streams = 0, .postcopy = true});
  options.greets = true;
  SessionHarness two(std::move(options));
  two.run();
  EXPECT_NE(two.source_outcome.runs_on, Side::kTarget);
  EXPECT_FALSE(two.ledger.ever_twice());
}

}  // namespace
}  // namespace samepage::migrator
