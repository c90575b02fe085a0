#pragma once

#include <memory>
#include <string_view>
#include <vector>

#include "core/hypervisor.h"
#include "core/result.h"
#include "fingerprinter/guest_memory.h"

namespace samepage::fingerprinter {

/// Which pages of a guest's RAM may have changed, as well as the kernel can tell.
///
/// Invariant: a page that is written after changed() began is in the result of that call or of a
/// later one; how much later is what the back ends differ in.
/// Threads: one at a time.
/// Lifetime: dropping a tracker leaves the guest as it was before; release() says why that may have
/// to happen early. The guest may end at any time.
class ChangeTracker {
 public:
  virtual ~ChangeTracker() = default;

  /// "written-pages", "soft-dirty" or "rotation".
  virtual std::string_view name() const = 0;

  /// The pages to look at again, rising: those that may have been written since the call before
  /// (the first call: all that may hold data), whether they hold data now or not. kNotFound: the
  /// guest is gone. kIo: the kernel refused; a new tracker may work.
  virtual Result<std::vector<PageRun>> changed() = 0;

  /// Whether changed() names every page that was written since the call before. Else a page may
  /// show up some calls later.
  virtual bool is_exact() const = 0;
};

/// Linux 6.7, and a guest that was started with our preload library (docs/man/samepaged.8): the
/// kernel notes the first write to each page (asynchronous userfaultfd write protection), and one
/// PAGEMAP_SCAN reads and forgets the notes. The kernel maps a huge page as 4 KiB pages when it is
/// written for the first time under such notes, and not as a huge one again: opt in where KSM is to
/// merge, not where huge pages are to stay. QEMU must not use userfaultfd on its RAM meanwhile:
/// destroy the tracker before a post-copy migration or a background snapshot. kInvalid: this kernel
/// or this guest does not offer it. kNotFound, kIo: as open_guest_memory().
Result<std::unique_ptr<ChangeTracker>> track_written_pages(const VmInfo& vm);

/// A kernel with CONFIG_MEM_SOFT_DIRTY, any guest. The notes of the whole process are forgotten at
/// once, and not in the same instant as they are read: a write in between is named only when the
/// page is written again. kInvalid: this kernel does not offer it.
Result<std::unique_ptr<ChangeTracker>> track_soft_dirty(const VmInfo& vm);

/// Any kernel: every call names a share of the pages that hold data, another one each time, so that
/// each has its turn within kRotationCalls calls, and those that hold data where none was.
/// `memory` is borrowed.
Result<std::unique_ptr<ChangeTracker>> track_by_rotation(GuestMemory& memory);
inline constexpr std::uint64_t kRotationCalls = 4;

/// The best of the three that this kernel and this guest offer.
Result<std::unique_ptr<ChangeTracker>> track_changes(const VmInfo& vm, GuestMemory& memory);

/// Whether this kernel has what track_written_pages() and track_soft_dirty() need, tried on the
/// calling process.
bool kernel_tracks_written_pages();
bool kernel_tracks_soft_dirty();

}  // namespace samepage::fingerprinter
