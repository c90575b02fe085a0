// The promise under test: each back end names every page that was written, none changes what the
// process has in memory, and dropping a tracker leaves nothing behind. Real processes.

#include "fingerprinter/change_tracker.h"

#include <fstream>
#include <set>
#include <string>

#include <gtest/gtest.h>
#include <sys/mman.h>

#include "fingerprinter/userfault.h"
#include "tests/fingerprinter/held_memory.h"

namespace samepage::fingerprinter {
namespace {

constexpr std::uint64_t kPages = 4096;

std::set<std::uint64_t> pages_of(const std::vector<PageRun>& runs) {
  std::set<std::uint64_t> pages;
  for (const PageRun& run : runs) {
    for (std::uint64_t i = 0; i < run.count; ++i) pages.insert(run.first + i);
  }
  return pages;
}

/// As a guest that was started with the preload: a userfaultfd is open in its process.
void open_userfault(std::byte* ram) {
  static Fd userfault;
  auto made = make_userfault();
  if (made) userfault = *std::move(made);
  for (std::uint64_t page = 0; page < 1000; ++page) write_page(ram, page, page + 1);
}

void write_some(std::byte* ram) {
  for (const std::uint64_t page : {3, 4, 999, 2000}) write_page(ram, page, 77);
}

std::uint64_t huge_kib(pid_t pid) {
  std::ifstream file("/proc/" + std::to_string(pid) + "/smaps_rollup");
  for (std::string word; file >> word;) {
    std::uint64_t kib = 0;
    if (word == "AnonHugePages:" && file >> kib) return kib;
  }
  return 0;
}

TEST(WrittenPagesTest, NamesExactlyWhatWasWritten) {
  if (!kernel_tracks_written_pages()) GTEST_SKIP() << "before Linux 6.7";
  for (const Holding holding : {Holding::kPrivate, Holding::kMemfd}) {
    HeldMemory held(holding, kPages, open_userfault, write_some);
    const auto tracker = track_written_pages(held.vm()).value();
    const std::uint64_t present = present_pages(held.vm());

    const auto first = pages_of(tracker->changed().value());
    EXPECT_TRUE(tracker->changed().value().empty());
    held.act();
    const auto second = pages_of(tracker->changed().value());

    for (std::uint64_t page = 0; page < 1000; ++page) ASSERT_TRUE(first.contains(page)) << page;
    EXPECT_EQ(second, (std::set<std::uint64_t>{3, 4, 999, 2000}));
    EXPECT_TRUE(tracker->changed().value().empty());
    EXPECT_EQ(present_pages(held.vm()), present + 1);  // Page 2000.
    EXPECT_TRUE(tracker->is_exact());
  }
}

TEST(WrittenPagesTest, TheNextAgentTakesOverFromOneThatIsGone) {
  if (!kernel_tracks_written_pages()) GTEST_SKIP() << "before Linux 6.7";
  HeldMemory held(Holding::kPrivate, kPages, open_userfault, write_some);
  ASSERT_TRUE(track_written_pages(held.vm()).value()->changed());
  const auto tracker = track_written_pages(held.vm()).value();
  ASSERT_TRUE(tracker->changed());

  held.act();

  EXPECT_EQ(pages_of(tracker->changed().value()).size(), 4U);
}

TEST(WrittenPagesTest, HugePagesStayWholeUntilTheyAreWritten) {
  if (!kernel_tracks_written_pages()) GTEST_SKIP() << "before Linux 6.7";
  HeldMemory held(
      Holding::kPrivate, kPages,
      [](std::byte* ram) {
        ::madvise(ram, kPages * kPageSize, MADV_HUGEPAGE);
        open_userfault(ram);
      },
      write_some);
  const std::uint64_t before = huge_kib(held.pid());
  if (before == 0) GTEST_SKIP() << "this kernel gave no huge pages";
  const auto tracker = track_written_pages(held.vm()).value();
  ASSERT_TRUE(tracker->changed());
  ASSERT_TRUE(tracker->changed().value().empty());
  EXPECT_EQ(huge_kib(held.pid()), before);

  held.act();
  const auto changed = pages_of(tracker->changed().value());

  for (const std::uint64_t page : {3, 4, 999, 2000}) EXPECT_TRUE(changed.contains(page)) << page;
}

TEST(WrittenPagesTest, WithoutThePreloadItIsInvalidAndWithoutTheGuestNotFound) {
  HeldMemory held(Holding::kPrivate, kPages, write_some);
  EXPECT_EQ(track_written_pages(held.vm()).error().code(), Errc::kInvalid);
  const VmInfo vm = held.vm();
  held.end();
  EXPECT_EQ(track_written_pages(vm).error().code(), Errc::kNotFound);
}

TEST(WrittenPagesTest, AGuestThatEndsIsNotFound) {
  if (!kernel_tracks_written_pages()) GTEST_SKIP() << "before Linux 6.7";
  HeldMemory held(Holding::kPrivate, kPages, open_userfault);
  const auto tracker = track_written_pages(held.vm()).value();
  held.end();
  EXPECT_EQ(tracker->changed().error().code(), Errc::kNotFound);
}

TEST(SoftDirtyTest, NamesWhatWasWritten) {
  HeldMemory held(Holding::kPrivate, kPages, open_userfault, write_some);
  const auto tracker = track_soft_dirty(held.vm());
  if (!kernel_tracks_soft_dirty()) {
    EXPECT_EQ(tracker.error().code(), Errc::kInvalid);
    GTEST_SKIP() << "this kernel has no CONFIG_MEM_SOFT_DIRTY";
  }
  ASSERT_TRUE((*tracker)->changed());
  held.act();
  const auto changed = pages_of((*tracker)->changed().value());
  for (const std::uint64_t page : {3, 4, 999, 2000}) EXPECT_TRUE(changed.contains(page)) << page;
  EXPECT_FALSE((*tracker)->is_exact());
}

TEST(RotationTest, GivesEveryPageItsTurnAndNewOnesAtOnce) {
  HeldMemory held(Holding::kPrivate, kPages, open_userfault, write_some);
  const auto memory = open_guest_memory(held.vm()).value();
  const auto tracker = track_by_rotation(*memory).value();
  EXPECT_EQ(pages_of(tracker->changed().value()).size(), kPages);
  held.act();

  std::set<std::uint64_t> seen = pages_of(tracker->changed().value());
  EXPECT_TRUE(seen.contains(2000));
  EXPECT_LT(seen.size(), 600U);
  for (std::uint64_t call = 1; call < kRotationCalls; ++call) {
    seen.merge(pages_of(tracker->changed().value()));
  }

  EXPECT_EQ(seen.size(), 1001U);
}

TEST(TrackChangesTest, TakesTheBestThatThereIs) {
  HeldMemory plain(Holding::kPrivate, kPages, write_some);
  HeldMemory preloaded(Holding::kPrivate, kPages, open_userfault);
  const auto memory = open_guest_memory(plain.vm()).value();
  const std::string_view usual = kernel_tracks_soft_dirty() ? "soft-dirty" : "rotation";
  EXPECT_EQ(track_changes(plain.vm(), *memory).value()->name(), usual);
  if (kernel_tracks_written_pages()) {
    const auto other = open_guest_memory(preloaded.vm()).value();
    EXPECT_EQ(track_changes(preloaded.vm(), *other).value()->name(), "written-pages");
  }
}

}  // namespace
}  // namespace samepage::fingerprinter
