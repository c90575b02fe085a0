#pragma once

#include <memory>

#include "fingerprinter/guest_memory.h"
#include "fingerprinter/guest_process.h"

namespace samepage::fingerprinter {

/// RAM that belongs to the process alone. `file`: what a private mapping of a file was made of (a
/// fork of a template); empty for anonymous memory. kIo, kNotFound: as open_guest_memory().
Result<std::unique_ptr<GuestMemory>> open_private_memory(GuestProcess process, const RamBlock& ram,
                                                         Fd file);

}  // namespace samepage::fingerprinter
