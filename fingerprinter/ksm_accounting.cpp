#include "fingerprinter/ksm_accounting.h"

#include <algorithm>
#include <string>
#include <vector>

#include "core/page.h"
#include "fingerprinter/guest_process.h"
#include "fingerprinter/pagemap.h"

namespace samepage::fingerprinter {
namespace {

constexpr std::uint64_t kEntriesBatch = 65536;

/// Appends the frame of every present page of one guest's RAM.
Result<void> collect_frames(const VmInfo& vm, std::vector<std::uint64_t>& frames) {
  const GuestProcess process = TRY(GuestProcess::open(vm.pid));
  const std::vector<Mapping> mappings = TRY(process.mappings());
  const RamBlock ram = TRY(find_ram(mappings, vm.memory_bytes));

  std::vector<PagemapEntry> entries;
  for (std::uint64_t at = 0; at < ram.bytes; at += entries.size() * kPageSize) {
    entries.resize(std::min(kEntriesBatch, (ram.bytes - at) / kPageSize));
    TRY(read_pagemap(process.pagemap(), ram.address + at, entries));
    for (const PagemapEntry& entry : entries) {
      if (!entry.present()) continue;
      if (entry.frame() == 0) return fail(Errc::kIo, "pagemap hides frames: needs CAP_SYS_ADMIN");
      frames.push_back(entry.frame());
    }
  }
  return {};
}

void count_frame(std::uint64_t flags, std::uint64_t mapped, FrameCounts& counts) {
  if ((flags & FrameFlags::kZeroPage) != 0) {
    counts.zero_page += mapped;
    return;
  }
  counts.resident_pages += mapped;
  ++counts.distinct_frames;
  if ((flags & FrameFlags::kKsm) == 0) return;
  counts.ksm_mapped_pages += mapped;
  ++counts.ksm_frames;
}

}  // namespace

Result<FrameCounts> count_frames(std::span<const VmInfo> vms) {
  const FrameFlags frame_flags = TRY(FrameFlags::open());
  std::vector<std::uint64_t> frames;
  for (const VmInfo& vm : vms) {
    const std::size_t before = frames.size();
    const auto done = collect_frames(vm, frames);
    if (done) continue;
    if (done.error().code() != Errc::kNotFound) return tl::unexpected(done.error());
    frames.resize(before);
  }
  std::ranges::sort(frames);

  std::vector<std::uint64_t> distinct(frames);
  distinct.erase(std::unique(distinct.begin(), distinct.end()), distinct.end());
  const std::vector<std::uint64_t> flags = TRY(frame_flags.read(distinct));

  FrameCounts counts;
  auto next = frames.begin();
  for (std::size_t i = 0; i < distinct.size(); ++i) {
    const auto end = std::find_if(next, frames.end(),
                                  [frame = distinct[i]](std::uint64_t f) { return f != frame; });
    count_frame(flags[i], static_cast<std::uint64_t>(end - next), counts);
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
