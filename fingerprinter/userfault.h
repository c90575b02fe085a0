#pragma once

#include <cstdint>

#include "core/fd.h"
#include "core/result.h"
#include "fingerprinter/guest_process.h"

namespace samepage::fingerprinter {

// Asynchronous write protection by userfaultfd (Linux 6.7), which Debian 12's headers do not know.

/// A userfaultfd of the calling process, not prepared yet. kInvalid: the kernel allows none.
Result<Fd> make_userfault();

/// Takes a copy of a userfaultfd that another process holds open. kInvalid: it has none. kIo: the
/// kernel refused. kNotFound: it has ended.
Result<Fd> take_userfault(const GuestProcess& process);

/// Prepares it (again): writes are noted by the kernel itself and stop nobody. kInvalid: the kernel
/// is too old.
Result<void> note_writes(const Fd& userfault);

/// Has writes to an address range of its process noted. kIo: the kernel refused, or somebody else
/// watches the range.
Result<void> watch(const Fd& userfault, std::uint64_t address, std::uint64_t bytes);
void unwatch(const Fd& userfault, std::uint64_t address, std::uint64_t bytes);

}  // namespace samepage::fingerprinter
