#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "core/fd.h"
#include "core/result.h"
#include "fingerprinter/guest_memory.h"

namespace samepage::fingerprinter {

/// One page's word of /proc/PID/pagemap.
struct PagemapEntry {
  std::uint64_t word = 0;

  bool present() const { return (word >> 63U & 1U) != 0; }
  bool soft_dirty() const { return (word >> 55U & 1U) != 0; }
  bool swapped() const { return (word >> 62U & 1U) != 0; }

  /// A present page of a file, which a private mapping has not written to.
  bool of_file() const { return (word >> 61U & 1U) != 0; }

  /// No other mapping shows this page.
  bool exclusive() const { return (word >> 56U & 1U) != 0; }

  /// The physical frame of a present page; 0 when the reader lacks CAP_SYS_ADMIN.
  std::uint64_t frame() const { return present() ? word & ((std::uint64_t{1} << 55U) - 1) : 0; }
};
static_assert(sizeof(PagemapEntry) == sizeof(std::uint64_t));

/// Reads the entries of consecutive pages from `address` on. kNotFound: the process has ended.
Result<void> read_pagemap(const Fd& pagemap, std::uint64_t address,
                          std::span<PagemapEntry> entries);

/// The runs of pages from `address` on that were written since the call before, numbered from 0,
/// and forgets it: of memory whose writes are noted (userfault.h).
Result<std::vector<PageRun>> take_written(const Fd& pagemap, std::uint64_t address,
                                          std::uint64_t pages);

/// The runs of pages from `address` on that are present and not the kernel's zero page, numbered
/// from 0, by the PAGEMAP_SCAN ioctl (Linux 6.7). kInvalid: this kernel does not know it.
Result<std::vector<PageRun>> scan_present(const Fd& pagemap, std::uint64_t address,
                                          std::uint64_t pages);

/// The same from pagemap's entries, on any kernel. Needs CAP_SYS_ADMIN to recognize the zero page;
/// without it, pages that show it are among the present ones.
Result<std::vector<PageRun>> read_present(const Fd& pagemap, std::uint64_t address,
                                          std::uint64_t pages);

/// /proc/kpageflags: what the kernel says of a physical frame. kIo: CAP_SYS_ADMIN is missing.
class FrameFlags {
 public:
  static constexpr std::uint64_t kKsm = std::uint64_t{1} << 21U;
  static constexpr std::uint64_t kZeroPage = std::uint64_t{1} << 24U;

  static Result<FrameFlags> open();

  /// The flags of each frame of a rising sequence.
  Result<std::vector<std::uint64_t>> read(std::span<const std::uint64_t> frames) const;

 private:
  explicit FrameFlags(Fd file);

  Fd file_;
};

}  // namespace samepage::fingerprinter
