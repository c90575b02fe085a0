// What an agent knows of its guests' memory: every figure has the moment of its scan, deltas make
// what they say, nothing looks at a guest that is held, and guests that end, change their size or
// cannot be read are no harm to the rest.
#include "tools/samepaged/guest_watches.h"

#include <span>
#include <string>
#include <vector>

#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "core/clock.h"
#include "fingerprinter/change_tracker.h"
#include "fingerprinter/userfault.h"
#include "tests/fakes/fake_clock.h"
#include "tests/fakes/fake_hypervisor.h"
#include "tests/fingerprinter/held_memory.h"
#include "tools/samepaged/reporter.h"

namespace samepage::agent {
namespace {

using fingerprinter::Fingerprint;
using fingerprinter::HeldMemory;
using fingerprinter::Holding;

constexpr std::uint64_t kPages = 3001;  // No other mapping of the child has this size.

Domains domains() {
  return {{"default", {.name = "default", .seed = {7}, .key = {}}}};
}

void fill(std::byte* ram) {
  for (std::uint64_t page = 0; page < 300; ++page) fingerprinter::write_page(ram, page, page + 1);
}

/// As fill(), with the userfaultfd that the preload library opens, and merging offered to KSM.
void fill_tracked(std::byte* ram) {
  fill(ram);
  ::madvise(ram, kPages * kPageSize, MADV_MERGEABLE);
  fingerprinter::make_userfault().value().release();
}

void change(std::byte* ram) {
  fingerprinter::write_page(ram, 17, 9'000);
}

VmInfo named(VmInfo vm, const std::string& name) {
  vm.id = {name};
  vm.name = name;
  return vm;
}

std::vector<std::byte> bytes_of(const std::string& text) {
  const auto bytes = std::as_bytes(std::span(text));
  return {bytes.begin(), bytes.end()};
}

TEST(GuestWatchesTest, KnowsSeveralGuestsAndWhenItLooked) {
  fakes::FakeClock clock;
  GuestWatches watches({.cpu_share = 2}, clock);
  HeldMemory first(Holding::kPrivate, kPages, fill_tracked, change);
  HeldMemory second(Holding::kMemfd, kPages, fill);
  const std::vector vms = {named(first.vm(), "first"), named(second.vm(), "second")};
  const auto began = clock.now();

  watches.rescan(vms, domains());
  clock.advance(std::chrono::seconds(5));

  for (const char* name : {"first", "second"}) {
    const auto known = watches.known({name});
    ASSERT_TRUE(known) << name;
    EXPECT_EQ(known->fingerprint.counts().unique, 300U);
    EXPECT_EQ(known->at, began);
  }
  EXPECT_TRUE(watches.known({"first"})->is_mergeable);
  EXPECT_FALSE(watches.known({"second"})->is_mergeable);
  if (fingerprinter::kernel_tracks_written_pages()) {
    EXPECT_EQ(watches.known({"first"})->tracker, "written-pages");
  }
}

TEST(GuestWatchesTest, WhatIsHeldIsNotTrackedAndKeepsItsAge) {
  fakes::FakeClock clock;
  GuestWatches watches({}, clock);
  HeldMemory guest(Holding::kPrivate, kPages, fill_tracked, change);
  const std::vector vms = {named(guest.vm(), "guest")};
  watches.rescan(vms, domains());
  const auto first = watches.known({"guest"})->at;
  clock.advance(std::chrono::seconds(60));

  auto mine = watches.hold({"guest"});
  auto another = watches.hold({"guest"});
  watches.rescan(vms, domains());
  EXPECT_EQ(watches.known({"guest"})->at, first);
  if (fingerprinter::kernel_tracks_written_pages()) {
    // The kernel refuses a second one: so there is none.
    EXPECT_TRUE(fingerprinter::track_written_pages(vms.front()));
  }
  mine.reset();
  watches.rescan(vms, domains());
  EXPECT_EQ(watches.known({"guest"})->at, first);
  another.reset();
  guest.act();
  watches.rescan(vms, domains());

  EXPECT_EQ(watches.known({"guest"})->at, clock.now());
  EXPECT_EQ(watches.known({"guest"})->fingerprint.counts().unique, 300U);
}

TEST(GuestWatchesTest, AGuestThatEndsOrIsOfAnotherSizeKeepsItsLastScanUntilItIsGone) {
  fakes::FakeClock clock;
  GuestWatches watches({}, clock);
  HeldMemory ends(Holding::kPrivate, kPages, fill);
  HeldMemory grows(Holding::kPrivate, kPages, fill);
  std::vector vms = {named(ends.vm(), "ends"), named(grows.vm(), "grows")};
  watches.rescan(vms, domains());
  const auto first = clock.now();
  clock.advance(std::chrono::seconds(60));

  ends.end();
  vms[1].memory_bytes *= 1'000;  // No mapping of the child is so large.
  watches.rescan(vms, domains());
  EXPECT_EQ(watches.known({"ends"})->at, first);
  EXPECT_EQ(watches.known({"grows"})->at, first);
  vms[1].memory_bytes /= 1'000;
  vms.erase(vms.begin());
  watches.rescan(vms, domains());

  EXPECT_FALSE(watches.known({"ends"}));
  EXPECT_EQ(watches.known({"grows"})->at, clock.now());
}

TEST(GuestWatchesTest, ForgetsAGuestWhoseDomainIsUnknown) {
  SystemClock clock;
  GuestWatches watches({}, clock);
  HeldMemory guest(Holding::kPrivate, kPages, fill);
  VmInfo vm = named(guest.vm(), "guest");
  watches.rescan(std::span(&vm, 1), domains());
  ASSERT_TRUE(watches.known(vm.id));
  vm.sharing_domain = "other";
  watches.rescan(std::span(&vm, 1), domains());
  EXPECT_FALSE(watches.known(vm.id));
}

TEST(GuestWatchesTest, StoppedItLooksAtNothing) {
  SystemClock clock;
  GuestWatches watches({}, clock);
  HeldMemory guest(Holding::kPrivate, kPages, fill);
  const std::vector vms = {named(guest.vm(), "guest")};
  watches.stop();
  watches.rescan(vms, domains());
  EXPECT_FALSE(watches.known({"guest"}));
}

TEST(ReporterTest, TellsAFingerprintOnceAndThenWhatChanged) {
  fakes::FakeHypervisor hypervisor;
  fakes::FakeClock clock;
  HeldMemory guest(Holding::kPrivate, kPages, fill_tracked, change);
  hypervisor.add(named(guest.vm(), "guest"));
  Reporter reporter({}, hypervisor, clock);

  const auto first = reporter.report(domains(), Reporter::Effort::kScan).value().vms(0);
  guest.act();
  clock.advance(std::chrono::seconds(60));
  const auto later = reporter.report(domains(), Reporter::Effort::kAtOnce).value().vms(0);
  const auto second = reporter.report(domains(), Reporter::Effort::kScan).value().vms(0);
  reporter.send_whole();
  const auto whole = reporter.report(domains(), Reporter::Effort::kAtOnce).value().vms(0);

  const auto base = Fingerprint::parse(bytes_of(first.fingerprint())).value();
  EXPECT_FALSE(first.tracker().empty());
  EXPECT_FALSE(first.not_mergeable());
  EXPECT_EQ(later.fingerprint_age_ms(), 60'000U);
  EXPECT_EQ(base.with_delta(bytes_of(later.fingerprint_delta())).value().version(), base.version());
  EXPECT_TRUE(second.fingerprint().empty());
  EXPECT_EQ(second.fingerprint_age_ms(), 0U);
  const auto made = base.with_delta(bytes_of(second.fingerprint_delta())).value();
  EXPECT_NE(made.version(), base.version());
  EXPECT_EQ(made.version(), Fingerprint::parse(bytes_of(whole.fingerprint())).value().version());
}

}  // namespace
}  // namespace samepage::agent
