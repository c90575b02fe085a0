#pragma once

#include <filesystem>
#include <memory>

#include "core/result.h"
#include "fingerprinter/guest_memory.h"

namespace samepage::fingerprinter {

/// The RAM of no running guest: a file that holds it, such as a template's. Pages that no guest has
/// written are holes; reading them makes none of them real. The file must not change meanwhile.
/// kNotFound: there is no such file. kIo: it cannot be read, or holds no whole pages.
Result<std::unique_ptr<GuestMemory>> open_ram_file(const std::filesystem::path& path);

}  // namespace samepage::fingerprinter
