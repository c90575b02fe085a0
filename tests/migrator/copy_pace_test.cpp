// The promise under test: what libvirt must hear while it copies it hears at the right moment, is
// told again when it does not listen, and is told nothing once the copying is over.

#include "migrator/copy_pace.h"

#include <thread>

#include <gtest/gtest.h>

#include "tests/fakes/fake_hypervisor.h"

namespace samepage::migrator {
namespace {

using std::chrono::milliseconds;
using std::chrono::steady_clock;

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

TEST_F(CopyPaceTest, AllowsTheDowntimeOnceQemuHasForgottenItsFirstPass) {
  const auto began = steady_clock::now();
  PassWatch& passes = *pace_.passes();
  passes.first_pass(IntakeBrake::kPressedBytes + 1);
  EXPECT_EQ(hypervisor_.downtime_max().count(), 0);
  passes.first_pass(IntakeBrake::kPressedBytes);
  await([&] { return hypervisor_.downtime_max() == milliseconds(300); });
  EXPECT_GE(steady_clock::now() - began, IntakeBrake::kUntilForgotten);
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
  pace_.passes()->further_pass();
  EXPECT_FALSE(hypervisor_.cancelled());
  EXPECT_EQ(hypervisor_.downtime_max().count(), 0);
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
