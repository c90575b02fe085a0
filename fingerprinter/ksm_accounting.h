#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "core/hypervisor.h"
#include "core/result.h"
#include "fingerprinter/memory_shares.h"

namespace samepage::fingerprinter {

/// What the guests of one host really occupy, counted by physical frames. Pages of 4 KiB.
struct FrameCounts {
  std::uint64_t resident_pages = 0;    ///< Mapped by the guests, the kernel's zero page left out.
  std::uint64_t distinct_frames = 0;   ///< Frames behind them.
  std::uint64_t ksm_mapped_pages = 0;  ///< Of the resident pages, those that KSM has merged.
  std::uint64_t ksm_frames = 0;        ///< Frames behind those.
  std::uint64_t zero_page = 0;         ///< Mapped to the kernel's zero page: they cost nothing.

  /// Of each VM that was asked about, in their order; absent: it ended. RAM that is
  /// a shared file counts as the guest's own.
  std::vector<std::optional<MemoryShares>> shares;

  /// Pages that sharing saves, by KSM and by mapping one RAM file.
  std::uint64_t saved_pages() const { return resident_pages - distinct_frames; }
};

/// Counts the frames of all the guests' RAM together. KSM's own counters are one per kernel; this
/// count tells the hosts of one kernel apart. On a real host pages_shared + pages_sharing exceeds
/// ksm_mapped_pages by QEMU's small blocks (video RAM, firmware), 1 % with small guests.
///
/// A guest that ended is left out. The guests run on meanwhile, so the counts are of no single
/// moment. kIo: CAP_SYS_ADMIN is missing, without which the kernel names no frames.
Result<FrameCounts> count_frames(std::span<const VmInfo> vms);

/// Whether KSM looks at this guest's RAM: private memory that QEMU offers (`mem-merge`, which
/// libvirt's <nosharepages/> turns off). kNotFound: the guest is gone. kIo: the kernel refused.
Result<bool> is_mergeable(const VmInfo& vm);

}  // namespace samepage::fingerprinter
