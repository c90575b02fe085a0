#pragma once

#include <string>

#include "core/result.h"
#include "tools/samepage/api_messages.h"

namespace samepage::cli {

/// The sharing of every pair of VMs as a picture (SVG 1.1, no scripts, no fonts of its own): a
/// square for each pair, darker the more they share, with the figure where there is room. At most
/// 200 VMs, those that share most.
std::string heat_map(const Sharing& sharing);

/// Writes it; a file that is there is replaced as a whole. kIo: it cannot be written.
Result<void> write_heat_map(const Sharing& sharing, const std::string& path);

}  // namespace samepage::cli
