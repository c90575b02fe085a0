#include "fingerprinter/ksm_accounting.h"

#include <algorithm>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "core/page.h"
#include "fingerprinter/file_data.h"
#include "fingerprinter/guest_process.h"
#include "fingerprinter/pagemap.h"

namespace samepage::fingerprinter {
namespace {

constexpr std::uint64_t kEntriesBatch = 65536;

/// A page of a guest in one word, so that sorting brings those of one frame together.
class MappedPage {
 public:
  static constexpr std::uint64_t kFramesMax = std::uint64_t{1} << 40U;  // Of 52 address bits.
  static constexpr std::uint64_t kVmsMax = std::uint64_t{1} << 23U;

  MappedPage(std::uint64_t frame, std::size_t vm, bool of_template)
      : word_(frame << 24U | vm << 1U | std::uint64_t{of_template}) {}

  std::uint64_t frame() const { return word_ >> 24U; }
  std::size_t vm() const { return word_ >> 1U & (kVmsMax - 1); }
  bool of_template() const { return (word_ & 1U) != 0; }

  bool operator<(const MappedPage& other) const { return word_ < other.word_; }

 private:
  std::uint64_t word_;
};

/// Of the pages of a template's file that hold data, those that a fork has not made its own.
class TemplatePages {
 public:
  explicit TemplatePages(std::vector<PageRun> data) : data_(std::move(data)) {
    for (const PageRun& run : data_) left_ += run.count;
  }

  /// Pages rise from call to call.
  void take_away(std::uint64_t page) {
    while (next_ < data_.size() && data_[next_].first + data_[next_].count <= page) ++next_;
    if (next_ < data_.size() && data_[next_].first <= page) --left_;
  }

  std::uint64_t left() const { return left_; }

 private:
  std::vector<PageRun> data_;
  std::size_t next_ = 0;
  std::uint64_t left_ = 0;
};

/// What a fork's template has in the range of its file that is the fork's RAM.
Result<TemplatePages> template_pages(const GuestProcess& process, const RamBlock& ram) {
  const Fd file = TRY(process.open_file(ram.first));
  return TemplatePages(TRY(
      data_runs(file, {.first = ram.first.offset / kPageSize, .count = ram.bytes / kPageSize})));
}

/// Appends every present page of one guest's RAM. Returns how many are still its template's.
Result<std::uint64_t> collect_pages(const VmInfo& vm, std::size_t index,
                                    std::vector<MappedPage>& pages) {
  const GuestProcess process = TRY(GuestProcess::open(vm.pid));
  const std::vector<Mapping> mappings = TRY(process.mappings());
  const RamBlock ram = TRY(find_ram(mappings, vm.memory_bytes));
  const bool forked = ram.file_backed() && !ram.first.shared;
  TemplatePages unwritten = forked ? TRY(template_pages(process, ram)) : TemplatePages({});
  std::uint64_t page = ram.first.offset / kPageSize;

  std::vector<PagemapEntry> entries;
  for (std::uint64_t at = 0; at < ram.bytes; at += entries.size() * kPageSize) {
    entries.resize(std::min(kEntriesBatch, (ram.bytes - at) / kPageSize));
    TRY(read_pagemap(process.pagemap(), ram.address + at, entries));
    for (const PagemapEntry& entry : entries) {
      const bool of_template = forked && entry.present() && entry.of_file();
      if ((entry.present() || entry.swapped()) && !of_template) unwritten.take_away(page);
      ++page;
      if (!entry.present()) continue;
      if (entry.frame() == 0) return fail(Errc::kIo, "pagemap hides frames: needs CAP_SYS_ADMIN");
      if (entry.frame() >= MappedPage::kFramesMax) return fail(Errc::kIo, "a frame beyond memory");
      pages.emplace_back(entry.frame(), index, of_template);
    }
  }
  if (!process.alive()) return tl::unexpected(process.blame("pagemap"));
  return unwritten.left();
}

/// The sorted pages that show one frame, with the frame's flags.
void count_frame(std::span<const MappedPage> pages, std::uint64_t flags, FrameCounts& counts) {
  if ((flags & FrameFlags::kZeroPage) != 0) {
    counts.zero_page += pages.size();
    return;
  }
  const bool ksm = (flags & FrameFlags::kKsm) != 0;
  counts.resident_pages += pages.size();
  ++counts.distinct_frames;
  counts.ksm_mapped_pages += ksm ? pages.size() : 0;
  counts.ksm_frames += ksm ? 1 : 0;
  for (const MappedPage& page : pages) {
    if (page.of_template()) continue;
    MemoryShares& shares = *counts.shares[page.vm()];
    ++(ksm ? shares.ksm : shares.own);
  }
}

}  // namespace

Result<FrameCounts> count_frames(std::span<const VmInfo> vms) {
  const FrameFlags frame_flags = TRY(FrameFlags::open());
  if (vms.size() > MappedPage::kVmsMax) return fail(Errc::kInvalid, "too many VMs to count");
  FrameCounts counts;
  std::vector<MappedPage> pages;
  for (std::size_t i = 0; i < vms.size(); ++i) {
    const std::size_t before = pages.size();
    const auto done = collect_pages(vms[i], i, pages);
    if (!done && done.error().code() != Errc::kNotFound) return tl::unexpected(done.error());
    if (!done) pages.erase(pages.begin() + static_cast<std::ptrdiff_t>(before), pages.end());
    counts.shares.emplace_back();
    if (done) counts.shares.back() = MemoryShares{.of_template = *done};
  }
  std::ranges::sort(pages, std::less<>());

  std::vector<std::uint64_t> frames;
  for (const MappedPage& page : pages) {
    if (frames.empty() || frames.back() != page.frame()) frames.push_back(page.frame());
  }
  const std::vector<std::uint64_t> flags = TRY(frame_flags.read(frames));

  auto next = pages.begin();
  for (std::size_t i = 0; i < frames.size(); ++i) {
    const auto end = std::find_if(
        next, pages.end(), [&](const MappedPage& page) { return page.frame() != frames[i]; });
    count_frame({next, end}, flags[i], counts);
    next = end;
  }
  return counts;
}

Result<bool> is_mergeable(const VmInfo& vm) {
  const GuestProcess process = TRY(GuestProcess::open(vm.pid));
  const std::vector<Mapping> mappings = TRY(process.mappings());
  const RamBlock ram = TRY(find_ram(mappings, vm.memory_bytes));
  const std::string flags = TRY(process.mapping_flags(ram.first.start));
  return (flags + ' ').find(" mg ") != std::string::npos;
}

}  // namespace samepage::fingerprinter
