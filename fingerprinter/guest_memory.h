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
/// Invariant: reading changes nothing in the guest: no page is faulted in, no KSM page is unshared.
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

  /// Copies whole pages starting at page `first` into `destination` (a multiple of kPageSize).
  /// Pages that the guest never touched read as what it would see: zeros, or its RAM file's data.
  /// kNotFound: the guest is gone. kIo: a page in the range is swapped out or could not be read.
  virtual Result<void> read(std::uint64_t first, std::span<std::byte> destination) = 0;
};

/// Opens the RAM of a running guest: read through its file when it is a shared memfd or file,
/// through /proc/PID/mem otherwise. kNotFound: the process is gone or has no RAM of that size.
/// kIo: it may not be looked at; root may, or the user that QEMU runs as.
Result<std::unique_ptr<GuestMemory>> open_guest_memory(const VmInfo& vm);

}  // namespace samepage::fingerprinter
