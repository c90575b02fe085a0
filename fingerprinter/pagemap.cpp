#include "fingerprinter/pagemap.h"

#include <algorithm>
#include <array>
#include <cerrno>
#include <system_error>
#include <utility>

#include <fcntl.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "core/page.h"

namespace samepage::fingerprinter {
namespace {

// From Linux 6.7's linux/fs.h, which is newer than Debian 12's copy.
struct ScanRegion {
  std::uint64_t start;
  std::uint64_t end;
  std::uint64_t categories;
};

struct ScanArgument {
  std::uint64_t size;
  std::uint64_t flags;
  std::uint64_t start;
  std::uint64_t end;
  std::uint64_t walk_end;
  std::uint64_t regions;
  std::uint64_t regions_size;
  std::uint64_t pages_max;
  std::uint64_t category_inverted;
  std::uint64_t category_mask;
  std::uint64_t category_anyof_mask;
  std::uint64_t return_mask;
};
static_assert(sizeof(ScanArgument) == 96);

constexpr std::uint64_t kProtectMatching = 1U << 0U;  // PM_SCAN_WP_MATCHING
constexpr std::uint64_t kCheckAsync = 1U << 1U;       // PM_SCAN_CHECK_WPASYNC
constexpr std::uint64_t kCategoryWritten = 1U << 1U;
constexpr std::uint64_t kCategoryPresent = 1U << 3U;
constexpr std::uint64_t kCategoryZeroPage = 1U << 5U;
constexpr unsigned long kPagemapScan = _IOWR('f', 16, ScanArgument);

constexpr std::size_t kEntriesBatch = 32768;
constexpr std::size_t kRegionsBatch = 1024;

Error refused(const char* what, int number) {
  const Errc code = number == ESRCH ? Errc::kNotFound : Errc::kIo;
  return {code, std::string(what) + ": " + std::generic_category().message(number)};
}

void append(std::vector<PageRun>& runs, PageRun run) {
  if (!runs.empty() && runs.back().first + runs.back().count == run.first) {
    runs.back().count += run.count;
  } else {
    runs.push_back(run);
  }
}

/// Of the present `entries`, those whose frame is the kernel's zero page; empty when it cannot be
/// known.
std::vector<std::uint64_t> zero_frames(std::span<const PagemapEntry> entries) {
  std::vector<std::uint64_t> frames;
  for (const PagemapEntry& entry : entries) {
    if (entry.frame() != 0) frames.push_back(entry.frame());
  }
  std::ranges::sort(frames);
  frames.erase(std::unique(frames.begin(), frames.end()), frames.end());
  const auto file = FrameFlags::open();
  if (!file) return {};
  const auto flags = file->read(frames);
  if (!flags) return {};
  std::size_t kept = 0;
  for (std::size_t i = 0; i < frames.size(); ++i) {
    if (((*flags)[i] & FrameFlags::kZeroPage) != 0) frames[kept++] = frames[i];
  }
  frames.resize(kept);
  return frames;
}

Result<std::vector<PageRun>> scan_pagemap(const Fd& pagemap, std::uint64_t address,
                                          std::uint64_t pages, ScanArgument argument) {
  std::vector<PageRun> runs;
  std::array<ScanRegion, kRegionsBatch> regions;
  argument.size = sizeof(argument);
  argument.start = address;
  argument.end = address + pages * kPageSize;
  argument.regions = reinterpret_cast<std::uintptr_t>(regions.data());
  argument.regions_size = regions.size();
  while (argument.start < argument.end) {
    const int count = ::ioctl(pagemap.get(), kPagemapScan, &argument);
    if (count < 0 && errno == ENOTTY)
      return fail(Errc::kInvalid, "no PAGEMAP_SCAN before Linux 6.7");
    if (count < 0) return tl::unexpected(refused("PAGEMAP_SCAN", errno));
    for (const ScanRegion& region : std::span(regions).first(static_cast<std::size_t>(count))) {
      append(runs, {(region.start - address) / kPageSize, (region.end - region.start) / kPageSize});
    }
    argument.start = argument.walk_end;
  }
  return runs;
}

}  // namespace

Result<void> read_pagemap(const Fd& pagemap, std::uint64_t address,
                          std::span<PagemapEntry> entries) {
  auto bytes = std::as_writable_bytes(entries);
  auto offset = static_cast<off_t>(address / kPageSize * sizeof(PagemapEntry));
  while (!bytes.empty()) {
    const ssize_t got = ::pread(pagemap.get(), bytes.data(), bytes.size(), offset);
    if (got < 0) return tl::unexpected(refused("pagemap", errno));
    // The kernel ends the file when the process has lost its memory.
    if (got == 0) return fail(Errc::kNotFound, "the process has ended");
    bytes = bytes.subspan(static_cast<std::size_t>(got));
    offset += got;
  }
  return {};
}

Result<std::vector<PageRun>> scan_present(const Fd& pagemap, std::uint64_t address,
                                          std::uint64_t pages) {
  ScanArgument argument{};
  argument.category_mask = kCategoryPresent | kCategoryZeroPage;
  argument.category_inverted = kCategoryZeroPage;
  argument.return_mask = kCategoryPresent;
  return scan_pagemap(pagemap, address, pages, argument);
}

Result<std::vector<PageRun>> take_written(const Fd& pagemap, std::uint64_t address,
                                          std::uint64_t pages) {
  ScanArgument argument{};
  argument.flags = kProtectMatching | kCheckAsync;
  argument.category_mask = kCategoryWritten;
  argument.return_mask = kCategoryWritten;
  return scan_pagemap(pagemap, address, pages, argument);
}

Result<std::vector<PageRun>> read_present(const Fd& pagemap, std::uint64_t address,
                                          std::uint64_t pages) {
  std::vector<PageRun> runs;
  std::vector<PagemapEntry> entries;
  for (std::uint64_t first = 0; first < pages; first += entries.size()) {
    entries.resize(std::min<std::uint64_t>(kEntriesBatch, pages - first));
    TRY(read_pagemap(pagemap, address + first * kPageSize, entries));
    const std::vector<std::uint64_t> zeros = zero_frames(entries);
    for (std::size_t i = 0; i < entries.size(); ++i) {
      if (!entries[i].present() || std::ranges::binary_search(zeros, entries[i].frame())) continue;
      append(runs, {first + i, 1});
    }
  }
  return runs;
}

FrameFlags::FrameFlags(Fd file) : file_(std::move(file)) {}

Result<FrameFlags> FrameFlags::open() {
  Fd file(::open("/proc/kpageflags", O_RDONLY | O_CLOEXEC));
  if (!file) return tl::unexpected(refused("/proc/kpageflags (needs CAP_SYS_ADMIN)", errno));
  return FrameFlags(std::move(file));
}

Result<std::vector<std::uint64_t>> FrameFlags::read(std::span<const std::uint64_t> frames) const {
  // The kernel takes about 0.1 us a frame, so reading over a short gap beats another call.
  constexpr std::uint64_t kGapMax = 8;
  constexpr std::uint64_t kRunMax = 4096;
  std::vector<std::uint64_t> flags;
  flags.reserve(frames.size());
  std::array<std::uint64_t, kRunMax> run;
  while (!frames.empty()) {
    std::size_t count = 1;
    while (count < frames.size() && frames[count] - frames[count - 1] <= kGapMax &&
           frames[count] - frames[0] < kRunMax) {
      ++count;
    }
    const std::size_t bytes = (frames[count - 1] - frames[0] + 1) * sizeof(std::uint64_t);
    const auto offset = static_cast<off_t>(frames[0] * sizeof(std::uint64_t));
    const ssize_t got = ::pread(file_.get(), run.data(), bytes, offset);
    if (got < 0) return tl::unexpected(refused("/proc/kpageflags", errno));
    if (std::cmp_not_equal(got, bytes)) return fail(Errc::kIo, "/proc/kpageflags ended too early");
    for (const std::uint64_t frame : frames.first(count)) flags.push_back(run[frame - frames[0]]);
    frames = frames.subspan(count);
  }
  return flags;
}

}  // namespace samepage::fingerprinter
