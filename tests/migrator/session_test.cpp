// The promise under test: a migration session carries libvirt's control connection and QEMU's
// stream to the target and lets the guest run there, once, with an outcome that says what happened.
// Both agents are the product's; libvirtd and QEMU are fakes that speak over real sockets.

#include <mutex>
#include <set>

#include <gtest/gtest.h>

#include "migrator/tls_stream.h"
#include "tests/migrator/session_harness.h"

namespace samepage::migrator {
namespace {

TEST(SessionTest, TheGuestRunsOnTheTargetAndTheFiguresAddUp) {
  SessionHarness two({});
  two.run();

  ASSERT_FALSE(two.source_outcome.error) << two.source_outcome.error->message();
  EXPECT_EQ(two.source_outcome.runs_on, Side::kTarget);
  EXPECT_EQ(two.target_outcome.copy, Copy::kRunning);
  EXPECT_EQ(two.source_outcome.relay.stream_bytes, 2'000'000U);
  // What an agent sends in farewell may not be read any more.
  constexpr std::uint64_t kFarewells = 300;
  EXPECT_LE(two.source_outcome.wire_bytes, two.wire->bytes());
  EXPECT_LE(two.target_outcome.wire_bytes, two.wire->bytes());
  EXPECT_GT(two.source_outcome.wire_bytes, two.wire->bytes() - kFarewells);
  EXPECT_GT(two.target_outcome.wire_bytes, two.wire->bytes() - kFarewells);
  EXPECT_GT(two.source_outcome.wire_bytes, 2'000'000U);
  EXPECT_GT(two.source_outcome.downtime.count(), 0);
  EXPECT_GT(two.source_outcome.total, two.source_outcome.downtime);
  EXPECT_TRUE(two.leaves_no_sockets());
  two.expect_runs_once();
}

TEST(SessionTest, TheGuestRunsBeforeTheSourcesCopyIsGone) {
  // What the watch for Finish is for: libvirt takes its time to kill the source's QEMU.
  SessionHarness two({});
  std::promise<void> resumed;
  ASSERT_TRUE(two.target_host.observe([&](const VmEvent& event) {
    if (event.kind == VmEventKind::kResumed) resumed.set_value();
  }));
  auto runs = resumed.get_future();
  auto in_time = std::future_status::timeout;
  two.source_host.at(Moment::kFinishAnswered,
                     [&] { in_time = runs.wait_for(std::chrono::seconds(20)); });
  two.run();

  EXPECT_EQ(in_time, std::future_status::ready);
  two.expect_runs_once();
}

TEST(SessionTest, AControlProtocolThatCannotBeFollowedReleasesWhenMigrateReturns) {
  SessionHarness two({.greets = true});
  two.run();
  EXPECT_EQ(two.source_outcome.runs_on, Side::kTarget);
  two.expect_runs_once();
}

TEST(SessionTest, AGuestThatItsOwnerPausedStaysPaused) {
  SessionHarness two({.vm_state = VmState::kPaused});
  two.run();
  EXPECT_EQ(two.source_outcome.runs_on, Side::kTarget);
  EXPECT_EQ(two.source_outcome.downtime.count(), 0);
  EXPECT_EQ(two.target_outcome.copy, Copy::kPausedByOwner);
  EXPECT_EQ(two.state_on(two.target_host), VmState::kPaused);
  EXPECT_FALSE(two.is_on(two.source_host));
}

TEST(SessionTest, AGuestThatItsOwnerPausesUnderWayStaysPaused) {
  SessionHarness two({});
  two.source_host.at(Moment::kPrepared, [&] {
    two.source->on_vm_event({kVm, VmEventKind::kPaused});
  });
  two.run();
  EXPECT_EQ(two.target_outcome.copy, Copy::kPausedByOwner);
}

TEST(SessionTest, ProgressIsReported) {
  SessionHarness two({});
  std::mutex mutex;
  std::promise<void> reported;
  bool seen = false;
  two.on_progress = [&](const SourceProgress& progress) {
    const std::scoped_lock lock(mutex);
    const bool complete = progress.phase == SourcePhase::kCopying &&
                          progress.relay.stream_bytes > 0 && progress.wire_bytes > 0 &&
                          progress.bytes_remaining == 4242;
    if (complete && !std::exchange(seen, true)) reported.set_value();
  };
  auto in_time = std::future_status::timeout;
  two.source_host.at(Moment::kHalfStreamed,
                     [&] { in_time = reported.get_future().wait_for(std::chrono::seconds(20)); });
  two.run();
  EXPECT_EQ(in_time, std::future_status::ready);
}

TEST(SessionTest, ProgressIsReportedThoughLibvirtDoesNotAnswer) {
  SessionHarness two({});
  std::promise<void> reported;
  const std::shared_future<void> told = reported.get_future();
  std::once_flag once;
  two.on_progress = [&](const SourceProgress& progress) {
    if (progress.relay.stream_bytes > 0) std::call_once(once, [&] { reported.set_value(); });
  };
  auto in_time = std::future_status::timeout;
  two.source_host.at(Moment::kProgressAsked, [&] { told.wait_for(std::chrono::seconds(20)); });
  two.source_host.at(Moment::kHalfStreamed,
                     [&] { in_time = told.wait_for(std::chrono::seconds(10)); });
  two.run();
  EXPECT_EQ(in_time, std::future_status::ready);
}

TEST(SessionTest, SeveralSessionsRunAtTheSameTime) {
  SessionHarness a({.session = "aaaa"});
  SessionHarness b({.session = "bbbb", .vm = VmId{"another"}});
  {
    const std::jthread other([&] { b.run(); });
    a.run();
  }
  a.expect_runs_once();
  b.expect_runs_once();
  EXPECT_EQ(a.source_outcome.runs_on, Side::kTarget);
  EXPECT_EQ(b.source_outcome.runs_on, Side::kTarget);
}

TEST(SessionTest, AStrangerAtTheTargetsPortHoldsUpNobody) {
  SessionHarness two({});
  const Deadline soon = std::chrono::steady_clock::now() + std::chrono::seconds(20);
  const SocketStream silent(connect_tcp("127.0.0.1", two.target->port(), soon).value());
  WireCounter counter;
  const auto stranger =
      TlsStream::connect(connect_tcp("127.0.0.1", two.target->port(), soon).value(),
                         "0123456789abcdef", PreSharedKey{}, counter, soon);
  EXPECT_EQ(stranger.error().code(), Errc::kInvalid);
  two.run();
  EXPECT_EQ(two.source_outcome.runs_on, Side::kTarget);
  two.expect_runs_once();
}

TEST(SessionTest, ASourceWithAnotherSecretIsRefusedAndKeepsTheGuest) {
  SessionHarness two(
      {.source = [](SourceOptions& options) { options.secret.bytes.fill({}); },
       .target =
           [](TargetOptions& options) { options.source_max = std::chrono::milliseconds(100); }});
  two.run();
  ASSERT_TRUE(two.source_outcome.error);
  EXPECT_EQ(two.source_outcome.error->code(), Errc::kInvalid);
  EXPECT_EQ(two.target_outcome.copy, Copy::kNone);
  EXPECT_EQ(two.target_outcome.error->code(), Errc::kTimedOut);
  two.expect_runs_once();
}

TEST(SessionTest, ATargetThatAlreadyHasTheVmRefusesToPrepare) {
  SessionHarness two({});
  TargetOptions options;
  options.session = "again";
  options.vm = kVm;
  options.listen_address = "127.0.0.1";
  const auto refused = TargetMigration::create(options, two.source_host,
                                               PlainRelay::maker(PlainRelay::Role::kTarget));
  EXPECT_EQ(refused.error().code(), Errc::kInvalid);
  two.target->abandon();
  two.target->run();
}

TEST(SessionTest, NamesThatCouldLeaveTheFolderAreRefused) {
  SessionHarness two({});
  const std::vector<std::string> names{"", "../x", "a b", std::string(65, 'a')};
  for (const std::string& name : names) {
    SourceOptions options;
    options.session = name;
    options.vm = kVm;
    options.target_port = 1;
    const auto refused = SourceMigration::create(options, two.source_host, {});
    EXPECT_EQ(refused.error().code(), Errc::kInvalid) << name;
  }
  two.target->abandon();
  two.target->run();
}

}  // namespace
}  // namespace samepage::migrator
