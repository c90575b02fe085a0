#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "core/fd.h"
#include "core/result.h"

namespace samepage::fingerprinter {

/// Fills `destination` from `offset` on. kIo: the kernel refused, or the file ends before.
Result<void> read_fully(const Fd& file, std::uint64_t offset, std::span<std::byte> destination);

}  // namespace samepage::fingerprinter
