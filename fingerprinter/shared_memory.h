#pragma once

#include <memory>

#include "fingerprinter/guest_memory.h"
#include "fingerprinter/guest_process.h"

namespace samepage::fingerprinter {

/// RAM that several mappings may share: the file has all its pages, whoever touched them.
std::unique_ptr<GuestMemory> open_shared_memory(GuestProcess process, const RamBlock& ram, Fd file);

}  // namespace samepage::fingerprinter
