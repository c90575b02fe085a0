// The promise under test: frames are counted as the kernel has them, scanning unmerges nothing, and
// what fingerprints predict is what KSM then really merges. Uses this machine's KSM for a moment.

#include "fingerprinter/ksm_accounting.h"

#include <chrono>
#include <fstream>
#include <string>
#include <vector>

#include <gtest/gtest.h>
#include <poll.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "fingerprinter/guest_memory.h"
#include "fingerprinter/overlap.h"
#include "fingerprinter/pagemap.h"
#include "tests/fingerprinter/held_memory.h"

namespace samepage::fingerprinter {
namespace {

constexpr std::uint64_t kPages = 3001;
constexpr std::uint64_t kCommon = 500;
constexpr std::uint64_t kTwins = 50;
constexpr std::uint64_t kOwn = 100;

/// Writes a file of /sys/kernel/mm/ksm and puts the old value back.
class KsmSetting {
 public:
  KsmSetting(const std::string& name, const std::string& value)
      : path_("/sys/kernel/mm/ksm/" + name) {
    std::ifstream(path_) >> before_;
    set(value);
  }
  ~KsmSetting() { set(before_); }
  KsmSetting(const KsmSetting&) = delete;
  KsmSetting& operator=(const KsmSetting&) = delete;

  void set(const std::string& value) const { std::ofstream(path_) << value << std::flush; }

 private:
  std::string path_;
  std::string before_;
};

/// Pages common to all guests, twins within the guest, and pages of its own; two only read.
HeldMemory::Action fill(std::uint64_t guest) {
  return [guest](std::byte* ram) {
    ::madvise(ram, kPages * kPageSize, MADV_MERGEABLE);
    for (std::uint64_t i = 0; i < kCommon; ++i) write_page(ram, i, 1'000'000 + i);
    for (std::uint64_t i = 0; i < kTwins; ++i) {
      write_page(ram, 1000 + 2 * i, guest << 32U | i);
      write_page(ram, 1001 + 2 * i, guest << 32U | i);
    }
    for (std::uint64_t i = 0; i < kOwn; ++i) write_page(ram, 2000 + i, guest << 40U | i);
    for (std::uint64_t i = 0; i < 2; ++i) {
      const volatile std::byte* byte = ram + (2900 + i) * kPageSize;
      static_cast<void>(*byte);
    }
  };
}

bool may_count_frames() {
  const auto counts = count_frames({});
  return static_cast<bool>(counts);
}

TEST(KsmAccountingTest, CountsFramesOfUnmergedGuests) {
  if (!may_count_frames()) GTEST_SKIP() << "needs CAP_SYS_ADMIN";
  const HeldMemory one(Holding::kPrivate, kPages, fill(1));
  HeldMemory gone(Holding::kPrivate, kPages, fill(2));
  const std::vector<VmInfo> vms = {one.vm(), gone.vm()};
  gone.end();

  const FrameCounts counts = count_frames(vms).value();

  EXPECT_EQ(counts.resident_pages, kCommon + 2 * kTwins + kOwn);
  EXPECT_EQ(counts.distinct_frames, counts.resident_pages);
  EXPECT_EQ(counts.zero_page, 2U);
  EXPECT_EQ(counts.ksm_frames, 0U);
  ASSERT_EQ(counts.shares.size(), 2U);
  EXPECT_EQ(counts.shares[0], (MemoryShares{.own = counts.resident_pages}));
  EXPECT_FALSE(counts.shares[1]);
}

TEST(KsmAccountingTest, AForksPagesAreItsTemplatesUntilItWritesThem) {
  if (!may_count_frames()) GTEST_SKIP() << "needs CAP_SYS_ADMIN";
  constexpr std::uint64_t kOfTemplate = 2'000;
  constexpr std::uint64_t kWritten = 100;
  const auto nothing = [](std::byte*) {};
  const auto write = [](std::byte* ram) {
    const volatile std::byte* byte = ram + 1'000 * kPageSize;
    static_cast<void>(*byte);
    for (std::uint64_t i = 0; i < kWritten; ++i) write_page(ram, i, 7 + i);
    write_page(ram, kOfTemplate + 100, 7);  // Of which the template has nothing.
  };
  HeldMemory fork(Holding::kPrivateFile, kPages, nothing, write);
  const std::vector<char> data(kOfTemplate * kPageSize, 'x');
  ASSERT_EQ(::pwrite(fork.file().get(), data.data(), data.size(), 0),
            static_cast<ssize_t>(data.size()));
  const HeldMemory other(Holding::kPrivate, kPages, fill(1));
  const std::vector<VmInfo> vms = {other.vm(), fork.vm()};

  const auto before = count_frames(vms).value().shares[1];
  fork.act();
  const auto after = count_frames(vms).value().shares[1];

  EXPECT_EQ(before, (MemoryShares{.own = 0, .of_template = kOfTemplate}));
  EXPECT_EQ(after, (MemoryShares{.own = kWritten + 1, .of_template = kOfTemplate - kWritten}));
}

TEST(KsmAccountingTest, CountsAFrameThatTwoGuestsMapOnce) {
  if (!may_count_frames()) GTEST_SKIP() << "needs CAP_SYS_ADMIN";
  // The same guest named twice maps each of its frames twice.
  const HeldMemory one(Holding::kMemfd, kPages, [](std::byte* ram) { write_page(ram, 7, 7); });
  const std::vector<VmInfo> vms = {one.vm(), one.vm()};

  const FrameCounts counts = count_frames(vms).value();

  EXPECT_EQ(counts.resident_pages, 2U);
  EXPECT_EQ(counts.distinct_frames, 1U);
  EXPECT_EQ(counts.saved_pages(), 1U);
  EXPECT_EQ(counts.shares[0], MemoryShares{.own = 1}) << "a shared file is the guest's own";
}

TEST(KsmAccountingTest, WithoutTheCapabilityItIsAnIoError) {
  if (::geteuid() != 0) GTEST_SKIP() << "needs root, to give it up";
  const pid_t child = ::fork();
  if (child == 0) {
    if (::setresuid(65534, 65534, 65534) != 0) ::_exit(2);
    const auto counts = count_frames({});
    ::_exit(!counts && counts.error().code() == Errc::kIo ? 0 : 1);
  }
  int status = 0;
  ::waitpid(child, &status, 0);
  EXPECT_EQ(WEXITSTATUS(status), 0);
}

Fingerprint fingerprint_of(const VmInfo& vm) {
  const auto memory = open_guest_memory(vm).value();
  return Fingerprint::of(scan(*memory, {5}).value());
}

/// Waits until KSM has saved `pages`, at most 30 s; it has no event to wait for.
FrameCounts wait_for_merging(std::span<const VmInfo> vms, std::uint64_t pages) {
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(30);
  FrameCounts counts = count_frames(vms).value();
  while (counts.saved_pages() < pages && std::chrono::steady_clock::now() < deadline) {
    ::poll(nullptr, 0, 20);
    counts = count_frames(vms).value();
  }
  return counts;
}

TEST(KsmAccountingTest, KsmMergesWhatWasPredictedAndScanningUnmergesNothing) {
  if (!may_count_frames()) GTEST_SKIP() << "needs CAP_SYS_ADMIN";
  if (!std::ifstream("/sys/kernel/mm/ksm/run")) GTEST_SKIP() << "this kernel has no KSM";
  const HeldMemory one(Holding::kPrivate, kPages, fill(1));
  const HeldMemory two(Holding::kPrivate, kPages, fill(2));
  const HeldMemory three(Holding::kPrivate, kPages, fill(3));
  const std::vector<VmInfo> vms = {one.vm(), two.vm(), three.vm()};
  const std::vector<Fingerprint> before = {fingerprint_of(vms[0]), fingerprint_of(vms[1]),
                                           fingerprint_of(vms[2])};
  const std::uint64_t saved = 2 * kCommon + 3 * kTwins;
  const Sharing predicted = sharing(before);

  const KsmSetting speed("pages_to_scan", "20000");
  const KsmSetting pause("sleep_millisecs", "1");
  const KsmSetting run("run", "1");
  const FrameCounts merged = wait_for_merging(vms, saved);
  run.set("0");  // Nothing merges or unmerges by itself from here on.
  if (merged.ksm_frames == 0) GTEST_SKIP() << "KSM did not run here";

  EXPECT_EQ(merged.saved_pages(), saved);
  EXPECT_EQ(merged.ksm_mapped_pages, 3 * kCommon + 6 * kTwins);
  EXPECT_EQ(merged.ksm_frames, kCommon + 3 * kTwins);
  EXPECT_EQ(merged.zero_page, 6U);
  for (const auto& shares : merged.shares) {
    EXPECT_EQ(shares, (MemoryShares{.own = kOwn, .ksm = kCommon + 2 * kTwins}));
  }
  EXPECT_EQ(predicted.within, 3 * kTwins);
  EXPECT_LE(predicted.total().low, static_cast<double>(saved));
  EXPECT_GE(predicted.total().high, static_cast<double>(saved));
  EXPECT_NEAR(predicted.total().pages, static_cast<double>(saved), 30);

  const Fingerprint again = fingerprint_of(vms[0]);
  // In one pass, a frame is read once, however many pages it is behind.
  FrameHashes frames;
  std::uint64_t pages_read = 0;
  for (const VmInfo& vm : vms) {
    const auto memory = open_guest_memory(vm).value();
    pages_read += scan(*memory, {5}, {.frames = &frames}).value().pages_read;
  }
  EXPECT_LE(pages_read, kCommon + 6 * kTwins + 3 * kOwn + 6);

  const FrameCounts after = count_frames(vms).value();
  EXPECT_EQ(after.ksm_mapped_pages, merged.ksm_mapped_pages);
  EXPECT_EQ(after.ksm_frames, merged.ksm_frames);
  EXPECT_EQ(after.distinct_frames, merged.distinct_frames);
  EXPECT_EQ(again.counts().unique, before[0].counts().unique);
}

}  // namespace
}  // namespace samepage::fingerprinter
