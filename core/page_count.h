#pragma once

#include "core/page.h"

namespace samepage {

/// Pages are counted, and told to people in MiB.
inline constexpr double kPagesPerMib = double{1 << 20} / kPageSize;

}  // namespace samepage
