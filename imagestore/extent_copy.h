#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "imagestore/object_format.h"

namespace samepage::imagestore {

/// Copies an extent's object out of memory that may be written over meanwhile, and returns the
/// copy's extent_checksum(): in one pass, each piece of the copy summed while it is in the
/// processor's first cache. `into` is as long as `from`.
std::uint64_t copy_extent(const ObjectName& name, std::span<const std::byte> from,
                          std::span<std::byte> into);

}  // namespace samepage::imagestore
