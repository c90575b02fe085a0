// The promise under test: the fakes that other tests rely on do what libvirt and the system's clock
// do: a migrated VM arrives paused and leaves its source, scripted faults strike once, time stands
// still until it is moved.

#include <vector>

#include <gtest/gtest.h>

#include "tests/fakes/fake_clock.h"
#include "tests/fakes/fake_hypervisor.h"

namespace samepage {
namespace {

using fakes::FakeClock;
using fakes::FakeHypervisor;
using fakes::HypervisorCall;

VmInfo running_vm() {
  VmInfo vm;
  vm.id = {"1f0c3c4e-5b7e-4b21-9f3b-6b1d0c0a0001"};
  vm.name = "web1";
  vm.state = VmState::kRunning;
  return vm;
}

MigrateRequest request_for(const VmInfo& vm) {
  MigrateRequest request;
  request.vm = vm.id;
  return request;
}

TEST(FakeHypervisorTest, MigratesPausedAndTellsTheStory) {
  FakeHypervisor source;
  FakeHypervisor target;
  source.lead_to(target);
  source.add(running_vm());
  std::vector<VmEventKind> events;
  ASSERT_TRUE(source.observe([&](const VmEvent& event) { events.push_back(event.kind); }));

  ASSERT_TRUE(source.migrate(request_for(running_vm())));

  EXPECT_TRUE(source.vms()->empty());
  ASSERT_EQ(target.vms()->size(), 1U);
  EXPECT_EQ(target.vms()->front().state, VmState::kPaused);
  const std::vector expected = {VmEventKind::kPausedForMigration, VmEventKind::kStopped};
  EXPECT_EQ(events, expected);
}

TEST(FakeHypervisorTest, KeepsTheVmWhenTheSwitchOverFails) {
  FakeHypervisor source;
  FakeHypervisor target;
  source.lead_to(target);
  source.add(running_vm());
  source.fail_next(HypervisorCall::kMigrateSwitched, Errc::kIo);

  EXPECT_EQ(source.migrate(request_for(running_vm())).error().code(), Errc::kIo);

  EXPECT_EQ(source.vms()->front().state, VmState::kRunning);
  EXPECT_TRUE(target.vms()->empty());
}

TEST(FakeHypervisorTest, DiscardsOnlyAPausedVm) {
  FakeHypervisor host;
  host.add(running_vm());
  EXPECT_EQ(host.discard_paused(running_vm().id).error().code(), Errc::kInvalid);

  VmInfo paused = running_vm();
  paused.state = VmState::kPaused;
  host.add(paused);

  EXPECT_TRUE(host.discard_paused(paused.id));
  EXPECT_EQ(host.discard_paused(paused.id).error().code(), Errc::kNotFound);
}

TEST(FakeHypervisorTest, AFaultStrikesOnce) {
  FakeHypervisor host;
  host.fail_next(HypervisorCall::kVms, Errc::kUnavailable);

  EXPECT_EQ(host.vms().error().code(), Errc::kUnavailable);
  EXPECT_TRUE(host.vms());
  EXPECT_EQ(host.calls(HypervisorCall::kVms), 2U);
}

TEST(FakeClockTest, MovesOnlyWhenMoved) {
  FakeClock clock;
  const auto before = clock.now();
  EXPECT_EQ(clock.now(), before);

  clock.advance(std::chrono::seconds(5));

  EXPECT_EQ(clock.now() - before, std::chrono::seconds(5));
}

}  // namespace
}  // namespace samepage
