#pragma once

#include <cstddef>
#include <span>

#include "core/result.h"

namespace samepage {

/// Fills `bytes` with the kernel's randomness, good for keys. kIo: it gives none. From any thread.
Result<void> fill_random(std::span<std::byte> bytes);

}  // namespace samepage
