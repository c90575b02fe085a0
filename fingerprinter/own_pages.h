#pragma once

#include <filesystem>
#include <vector>

#include "core/hypervisor.h"
#include "core/result.h"

namespace samepage::fingerprinter {

/// Of each page of a guest's RAM, which is a private mapping of all of `ram_file`: whether it is
/// the guest's own, and no more the file's. kInvalid: the guest's RAM is no such mapping.
/// kNotFound: the guest is gone. kIo: it may not be looked at.
Result<std::vector<bool>> own_pages(const VmInfo& vm, const std::filesystem::path& ram_file);

}  // namespace samepage::fingerprinter
