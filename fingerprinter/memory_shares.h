#pragma once

#include <cstdint>
#include <string_view>

#include "core/hypervisor.h"
#include "core/result.h"
#include "fingerprinter/guest_process.h"

namespace samepage::fingerprinter {

/// To whom the present pages of a guest's RAM belong. Bytes.
struct MemoryShares {
  std::uint64_t own = 0;          ///< Nobody else's: what ending the guest would free.
  std::uint64_t template_of = 0;  ///< Still the template's, whose file it maps privately.
  std::uint64_t ksm = 0;          ///< Merged by KSM.
};

/// From the kernel's own account of the mappings (/proc/PID/smaps). A fork's pages are the
/// template's until they are written; RAM that is a shared file counts as the guest's own.
/// kNotFound: the guest is gone. kIo: it may not be looked at.
Result<MemoryShares> memory_shares(const VmInfo& vm);

/// The same from the text of a smaps file, for the RAM block given.
MemoryShares shares_in(std::string_view smaps, const RamBlock& ram);

}  // namespace samepage::fingerprinter
