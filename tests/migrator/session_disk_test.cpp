// The promise under test: a guest that takes a disk along runs on the target only when all that it
// wrote is there to stay, and whatever breaks before leaves it, and its disk, on the source.

#include <atomic>
#include <thread>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "migrator/arriving_disks.h"
#include "migrator/auto_converge.h"
#include "tests/fakes/fake_byte_stream.h"
#include "tests/migrator/played_disk.h"
#include "tests/migrator/session_harness.h"
#include "tests/migrator/session_moments.h"

namespace samepage::migrator {
namespace {

using ::testing::HasSubstr;
using namespace std::chrono_literals;

constexpr std::uint64_t kPages = 500;

/// A migration of a guest with one disk.
class SessionDiskTest : public ::testing::Test {
 protected:
  SessionDiskTest() {
    for (std::uint64_t page = 0; page < kPages; ++page) disk_.write(page, page);
  }

  SessionHarness::Options options(std::function<void(SourceOptions&)> source = {}) {
    SessionHarness::Options options;
    options.source = [source](SourceOptions& chosen) {
      chosen.answer_max = 500ms;
      chosen.disks = {.answer_max = 2s, .stall_max = 2s, .rest = 2ms, .hand_over_max = 2s};
      if (source) source(chosen);
    };
    options.target = [this](TargetOptions& chosen) {
      chosen.expect_disk = disk_.expected();
      chosen.source_max = 500ms;
      chosen.total_max = 10s;
    };
    options.disks = [this] { return disk_.leaving(); };
    return options;
  }

  void expect_stayed(SessionHarness& two) {
    EXPECT_EQ(two.source_outcome.runs_on, Side::kSource);
    EXPECT_EQ(two.target_outcome.copy, Copy::kNone);
    two.expect_runs_once();
  }

  PlayedDisk disk_;
};

TEST_F(SessionDiskTest, TheTargetHasAllOfTheDiskBeforeTheGuestRunsThere) {
  SessionHarness two(options());
  for (const Moment moment : {Moment::kPrepared, Moment::kHalfStreamed, Moment::kGuestStopped}) {
    two.source_host.at(moment, [&, moment] {
      const auto value = 1'000 + static_cast<std::uint64_t>(moment);
      for (std::uint64_t page = 0; page < 40; ++page) disk_.write(page * 7, value);
    });
  }
  PlayedDisk::Pages when_resumed;
  ASSERT_TRUE(two.target_host.observe([&](const VmEvent& event) {
    if (event.kind == VmEventKind::kResumed) when_resumed = disk_.on_target();
  }));
  two.run();

  EXPECT_EQ(two.source_outcome.runs_on, Side::kTarget);
  EXPECT_TRUE(disk_.is_complete());
  EXPECT_EQ(when_resumed, disk_.on_source());
  EXPECT_GE(two.source_outcome.disk_bytes, (kPages + 40) * 4096);
  EXPECT_GT(disk_.flushes(), 0U);
  two.expect_runs_once();
}

TEST_F(SessionDiskTest, TheMemoryBeginsWhenTheDiskIsNearlyAcross) {
  SessionHarness two(options([](SourceOptions& source) { source.disks.near_time = 0ms; }));
  std::size_t there = 0;
  two.source_host.at(Moment::kPrepared, [&] { there = disk_.on_target().size(); });
  two.run();
  EXPECT_EQ(there, kPages);
  EXPECT_EQ(two.source_outcome.runs_on, Side::kTarget);
}

TEST_F(SessionDiskTest, AGuestThatWritesFasterThanTheLinkIsHeldUntilItStandsStill) {
  SessionHarness two(options([](SourceOptions& source) {
    source.disks.near_time = 0ms;
    source.disks.near_bytes = kPages / 4 * 4096;
  }));
  std::uint64_t written = 0;
  disk_.before_next = [&] {
    for (int i = 0; i < 2 && disk_.limits().empty(); ++i, ++written) {
      disk_.write(written * 199 % kPages, kPages + written);
    }
    return Result<void>();
  };
  two.run();

  EXPECT_EQ(two.source_outcome.runs_on, Side::kTarget);
  EXPECT_EQ(disk_.on_target(), disk_.on_source());
  const auto limits = disk_.limits();
  ASSERT_GE(limits.size(), 2U);
  EXPECT_GE(limits.front(), AutoConverge::kBytesPerSecondMin);
  EXPECT_EQ(limits.back(), 0U);
}

TEST_F(SessionDiskTest, ATargetThatCannotHaveTheDiskIsNotBegunWith) {
  disk_.before_expect = [] { return fail(Errc::kUnavailable, "there is no room"); };
  SessionHarness two(options());
  std::atomic<bool> has_begun = false;
  two.source_host.at(Moment::kPrepared, [&] { has_begun = true; });
  two.run();
  EXPECT_FALSE(has_begun);
  ASSERT_TRUE(two.source_outcome.error);
  EXPECT_THAT(two.source_outcome.error->message(), HasSubstr("there is no room"));
  expect_stayed(two);
}

TEST_F(SessionDiskTest, ATargetThatKeepsNoDisksRefuses) {
  auto without = options();
  without.target = [](TargetOptions&) {};
  SessionHarness two(std::move(without));
  two.run();
  EXPECT_THAT(two.source_outcome.error->message(), HasSubstr("keeps no disks"));
  expect_stayed(two);
}

TEST_F(SessionDiskTest, ATargetThatCannotTakeOnSaysWhy) {
  std::atomic<int> puts = 0;
  disk_.before_put = [&]() -> Result<void> {
    if (++puts > 100) return fail(Errc::kIo, "the file system is full");
    return {};
  };
  SessionHarness two(options());
  two.run();
  EXPECT_FALSE(disk_.is_complete());
  EXPECT_THAT(two.source_outcome.error->message(), HasSubstr("the file system is full"));
  expect_stayed(two);
}

TEST_F(SessionDiskTest, ASourceWhoseDiskFailsKeepsTheGuest) {
  std::atomic<bool> fails = false;
  disk_.before_next = [&]() -> Result<void> {
    if (fails) return fail(Errc::kIo, "the disk's process is gone");
    return {};
  };
  SessionHarness two(options());
  two.source_host.at(Moment::kGuestStopped, [&] { fails = true; });
  two.run();
  EXPECT_FALSE(disk_.is_complete());
  expect_stayed(two);
}

TEST_F(SessionDiskTest, ADiskWhoseRestDoesNotComeAcrossLeavesTheGuestOnTheSource) {
  disk_.before_complete = [] { return fail(Errc::kIo, "it cannot be flushed"); };
  SessionHarness two(options());
  two.run();
  EXPECT_THAT(two.source_outcome.error->message(), HasSubstr("it cannot be flushed"));
  expect_stayed(two);
}

TEST_F(SessionDiskTest, AGuestIsNotHeldUpForEverByItsDisk) {
  std::atomic<bool> hangs = false;
  disk_.before_complete = [&]() -> Result<void> {
    hangs = true;
    while (hangs) std::this_thread::sleep_for(1ms);
    return fail(Errc::kIo, "too late");
  };
  SessionHarness two(options([](SourceOptions& source) { source.disks.hand_over_max = 50ms; }));
  two.source_host.at(Moment::kFinishFailed, [&] { hangs = false; });
  two.run();
  expect_stayed(two);
}

TEST_F(SessionDiskTest, ACancellationWhileTheDiskGoesAcrossEndsIt) {
  SessionHarness two(options());
  std::atomic<int> puts = 0;
  disk_.before_put = [&]() -> Result<void> {
    if (++puts == 50) two.source->cancel();
    std::this_thread::sleep_for(1ms);
    return {};
  };
  two.run();
  EXPECT_FALSE(disk_.is_complete());
  EXPECT_THAT(two.source_outcome.error->message(), HasSubstr("cancelled"));
  expect_stayed(two);
}

TEST_F(SessionDiskTest, PostcopyIsRefusedBeforeAnythingIsDone) {
  SessionHarness two(options([](SourceOptions& source) { source.mode.postcopy = true; }));
  std::atomic<bool> has_begun = false;
  two.source_host.at(Moment::kPrepared, [&] { has_begun = true; });
  two.run();
  EXPECT_FALSE(has_begun);
  EXPECT_FALSE(disk_.is_offered());
  EXPECT_EQ(two.source_outcome.error->code(), Errc::kInvalid);
  EXPECT_THAT(two.source_outcome.error->message(), HasSubstr("--postcopy"));
  expect_stayed(two);
}

const std::vector<Fault> kFaults{
    {[](SessionHarness& two) { two.wire->cut_all(); }, "NetworkDies"},
    {[](SessionHarness& two) { two.wire->cut(1); }, "DiskChannelBreaks"},
    {[](SessionHarness& two) { two.wire->lose_to_target(1); }, "DiskChannelGetsLost"},
    {[](SessionHarness& two) { two.wire->cut(SessionWire::kSignal); }, "SignalsBreak"},
    {[](SessionHarness& two) { two.source->abandon(); }, "SourceAgentDies"},
    {[](SessionHarness& two) { two.target->abandon(); }, "TargetAgentDies"},
    {[](SessionHarness& two) { two.source->cancel(); }, "Cancelled"},
};

class SessionDiskFaultTest : public SessionDiskTest,
                             public ::testing::WithParamInterface<std::tuple<At, Fault>> {};

TEST_P(SessionDiskFaultTest, TheGuestNeverRunsWithoutItsDisk) {
  const auto& [at, fault] = GetParam();
  auto chosen = options([](SourceOptions& source) {
    source.answer_max = 300ms;
    source.disks.stall_max = 300ms;
    source.disks.hand_over_max = 300ms;
  });
  chosen.target = [this](TargetOptions& target) {
    target.expect_disk = disk_.expected();
    target.source_max = 300ms;
    target.total_max = 3s;
  };
  SessionHarness two(std::move(chosen));
  std::atomic<bool> ran_without = false;
  ASSERT_TRUE(two.target_host.observe([&](const VmEvent& event) {
    if (event.kind != VmEventKind::kResumed) return;
    if (!disk_.is_complete() || disk_.on_target() != disk_.on_source()) ran_without = true;
  }));
  FakeLibvirtHost& host = at.on_source ? two.source_host : two.target_host;
  host.at(at.moment, [&, strike = fault.strike] {
    if (at.moment < Moment::kPerformed) disk_.write(3, 4'711);
    strike(two);
  });
  two.run();
  two.expect_runs_once();
  EXPECT_FALSE(ran_without);
  // An arriving disk may go when the session left no copy; then the source's must be the guest's.
  if (two.target_outcome.copy == Copy::kNone) {
    EXPECT_NE(two.source_outcome.runs_on, Side::kTarget);
  }
  EXPECT_TRUE(disk_.is_complete() || two.source_outcome.runs_on != Side::kTarget);
}

INSTANTIATE_TEST_SUITE_P(EveryMoment, SessionDiskFaultTest,
                         ::testing::Combine(::testing::ValuesIn(kMoments),
                                            ::testing::ValuesIn(kFaults)),
                         [](const auto& tested) {
                           return std::get<0>(tested.param).name + std::get<1>(tested.param).name;
                         });

TEST(ArrivingDisksTest, ASourceThatReleasesBeforeItsDiskIsHereIsNotBelieved) {
  PlayedDisk disk;
  ArrivingDisks arriving(disk.expected(), std::chrono::steady_clock::now() + 10s, [](Error) {});
  EXPECT_TRUE(arriving.have_arrived());
  auto [near, far] = fakes::FakeByteStream::connect();
  arriving.add(std::move(far));
  EXPECT_FALSE(arriving.have_arrived());
}

}  // namespace
}  // namespace samepage::migrator
