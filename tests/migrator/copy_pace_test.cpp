// The promise under test: what libvirt must hear while it copies it hears at the right moment, is
// told again when it does not listen, and is told nothing once the copying is over.

#include "migrator/copy_pace.h"

#include <array>
#include <thread>
#include <vector>

#include <gtest/gtest.h>

#include "core/page.h"
#include "tests/fakes/fake_byte_stream.h"
#include "tests/fakes/fake_hypervisor.h"

namespace samepage::migrator {
namespace {

using std::chrono::milliseconds;
using std::chrono::steady_clock;

constexpr std::uint64_t kLogPiece = std::uint64_t{256} << 10U;

class CopyPaceTest : public testing::Test {
 protected:
  CopyPaceTest() {
    hypervisor_.add({.id = vm_, .name = "web1", .state = VmState::kRunning});
    pace_.begin(false);
  }

  /// For what must come: a failure where it does not within a generous time.
  template <class Condition>
  void await(const Condition& condition) {
    const auto end = steady_clock::now() + std::chrono::seconds(20);
    while (!condition() && steady_clock::now() < end) std::this_thread::sleep_for(milliseconds(1));
    EXPECT_TRUE(condition());
  }

  const VmId vm_{"u1"};
  fakes::FakeHypervisor hypervisor_;
  CopyPace pace_{{.vm = vm_, .downtime_max = milliseconds(300)}, hypervisor_};
};

TEST_F(CopyPaceTest, LeavesQemuAloneBeforeTheEndOfItsFirstPass) {
  pace_.passes()->first_pass(CopyPace::kPassEndBytes + 1);
  std::this_thread::sleep_for(milliseconds(20));
  EXPECT_EQ(hypervisor_.downtime_max().count(), 0);
}

TEST_F(CopyPaceTest, HoldsQemuBackUntilItsStreamIsDeliveredAndTrustsItOnceItHasForgotten) {
  constexpr std::size_t kBytes = 2 * IntakeBrake::kUnderWayBytes;
  auto [qemu, ours] = fakes::FakeByteStream::connect();
  const auto braked = pace_.brake(std::move(ours));
  std::vector<std::byte> buffer(kBytes);
  const std::jthread writer([&, qemu = qemu.get()] {
    const std::vector<std::byte> bytes(kBytes);
    EXPECT_TRUE(qemu->write_all(bytes, steady_clock::now() + std::chrono::minutes(1)));
  });
  for (std::size_t read = 0; read < kBytes - 1;) {
    const auto rest = std::span(buffer).subspan(read, kBytes - 1 - read);
    read += braked->read_some(rest, steady_clock::now() + std::chrono::minutes(1)).value();
  }
  const auto last = std::span(buffer).last(1);

  const auto ended = steady_clock::now();
  PassWatch& passes = *pace_.passes();
  passes.first_pass(CopyPace::kPassEndBytes);
  EXPECT_EQ(braked->read_some(last, ended).error().code(), Errc::kTimedOut);
  EXPECT_EQ(hypervisor_.downtime_max().count(), 0);
  passes.delivered(kBytes - IntakeBrake::kUnderWayBytes, 0);
  EXPECT_TRUE(braked->read_some(last, ended + std::chrono::minutes(1)));
  await([&] { return hypervisor_.downtime_max() >= CopyPace::kDowntimeNone; });
  await([&] { return hypervisor_.downtime_max() == milliseconds(300); });
  EXPECT_GE(steady_clock::now() - ended, CopyPace::kUntilForgotten);
}

TEST_F(CopyPaceTest, AllowsItWhateverIsSeenOfTheStream) {
  pace_.passes()->out_of_sight();
  await([&] { return hypervisor_.downtime_max() == milliseconds(300); });
}

TEST_F(CopyPaceTest, AllowsItAtOnceWhereQemuMeasuresRightly) {
  PassWatch& passes = *pace_.passes();
  passes.speed_is_true(true);
  passes.first_pass(1);
  await([&] { return hypervisor_.downtime_max() == milliseconds(300); });
}

TEST_F(CopyPaceTest, CancelsUntilItIsHeard) {
  for (int i = 0; i < 3; ++i) hypervisor_.fail_next(fakes::HypervisorCall::kCancel, Errc::kInvalid);
  pace_.cancel();
  await([&] { return hypervisor_.cancelled(); });
}

TEST_F(CopyPaceTest, SaysNothingOnceItIsOver) {
  pace_.finish();
  pace_.cancel();
  pace_.passes()->further_pass(kLogPiece);
  EXPECT_FALSE(hypervisor_.cancelled());
  EXPECT_EQ(hypervisor_.downtime_max().count(), 0);
}

TEST(CopyPaceEmulatedTest, PausesWhereTheDirtyLogHasAGap) {
  const VmId vm{"u1"};
  fakes::FakeHypervisor hypervisor;
  hypervisor.add({.id = vm, .name = "web1", .state = VmState::kRunning});
  CopyPace pace({.vm = vm, .downtime_max = milliseconds(300)}, hypervisor);
  pace.begin(true);
  auto [qemu, ours] = fakes::FakeByteStream::connect();
  const auto braked = pace.brake(std::move(ours));
  std::array<std::byte, 1> one{};
  ASSERT_TRUE(qemu->write_all(std::array<std::byte, 2>{}, steady_clock::now()));

  PassWatch& passes = *pace.passes();
  passes.speed_is_true(true);
  passes.further_pass(8 * kLogPiece + 2 * kPageSize);
  EXPECT_TRUE(braked->read_some(one, steady_clock::now() + std::chrono::minutes(1)));
  const auto before = steady_clock::now();
  passes.further_pass(8 * kLogPiece);
  EXPECT_EQ(braked->read_some(one, before).error().code(), Errc::kTimedOut);
}

TEST(CopyPacePostcopyTest, AsksNoRelayAndEnds) {
  fakes::FakeHypervisor hypervisor;
  CopyPace pace({.vm = VmId{"u1"}, .postcopy = true, .switch_look = milliseconds(1)}, hypervisor);
  EXPECT_EQ(pace.passes(), nullptr);
  pace.begin(false);
  pace.finish();
}

}  // namespace
}  // namespace samepage::migrator
