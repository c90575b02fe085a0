#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "core/hypervisor.h"
#include "core/result.h"

namespace samepage::fingerprinter {

/// Consecutive pages of one guest's RAM: [first, first + count).
struct PageRun {
  std::uint64_t first = 0;
  std::uint64_t count = 0;
};

/// One guest's RAM, read from outside its QEMU process. Pages are numbered from 0 in the order of
/// QEMU's main RAM block (`pc.ram` offset / 4096), which is also the migration stream's order.
///
/// Invariant: reading changes nothing in the guest: no page is faulted in, no KSM page is unshared,
/// no huge page split. (A page that KSM merges, or the guest gives back, in the very instant of its
/// reading may be an exception; the next pass of KSM or of the balloon mends it.)
/// Threads: every method may be called from any thread.
/// Lifetime: the QEMU process may end at any time; reads then say kNotFound. Destroy the object
/// then: it holds RAM that is a shared file open, and its memory allocated.
class GuestMemory {
 public:
  virtual ~GuestMemory() = default;

  virtual std::uint64_t pages() const = 0;

  /// The runs of pages that hold data: present in memory and not the kernel's shared zero page.
  /// kNotFound: the guest is gone. kIo: the kernel refused.
  virtual Result<std::vector<PageRun>> populated() = 0;

  /// The same within one run of pages.
  virtual Result<std::vector<PageRun>> populated_within(PageRun range);

  /// Copies whole pages starting at page `first` into `destination` (a multiple of kPageSize).
  /// Pages that the guest never touched read as what it would see: zeros, or its RAM file's data.
  /// kNotFound: the guest is gone. kIo: a page in the range is swapped out or could not be read.
  virtual Result<void> read(std::uint64_t first, std::span<std::byte> destination) = 0;

  /// Copies several runs, rising and within kRunsSpanMax pages of each other, one behind the other.
  /// Errors as read().
  virtual Result<void> read_runs(std::span<const PageRun> runs, std::span<std::byte> destination);

  /// The pages where they lie, without a copy; they change while they are looked at. Empty: these
  /// have to be read. Valid as long as this object. kNotFound: the guest is gone.
  virtual Result<std::span<const std::byte>> view(PageRun run);

  /// For each page from `first` on, the physical frame when several mappings show it (KSM merged
  /// it, say), 0 when it is the guest's own or cannot be known. Equal frames are equal pages.
  /// kNotFound: the guest is gone.
  virtual Result<void> shared_frames(std::uint64_t first, std::span<std::uint64_t> frames);

  /// Of read_runs(): from the first run's begin to the last one's end.
  static constexpr std::uint64_t kRunsSpanMax = 512;
};

/// Opens the RAM of a running guest: mapped here when its file can be trusted not to shrink (a
/// sealed memfd), read through its file when it is another shared one, read from the process
/// otherwise. kNotFound: the process is gone or has no RAM of that size. kIo: it may not be looked
/// at; root may, or the user that QEMU runs as.
Result<std::unique_ptr<GuestMemory>> open_guest_memory(const VmInfo& vm);

}  // namespace samepage::fingerprinter
