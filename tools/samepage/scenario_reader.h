#pragma once

#include <string_view>

#include "core/result.h"
#include "placer/scenario.h"

namespace samepage::cli {

/// Reads docs/formats/scenario.md. kInvalid: the text is no such scenario; the message says where,
/// as "vms[3].memory[0].own_mib". A member that the format does not know is refused.
Result<placer::Scenario> read_scenario(std::string_view json);

}  // namespace samepage::cli
