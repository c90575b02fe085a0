#pragma once

#include <cstddef>
#include <span>
#include <vector>

#include "core/page.h"
#include "core/result.h"

namespace samepage::migrator {

/// What a page has that an older version of it had not: the bytes of each stretch that differs,
/// with the distances between them, as in XBZRLE (Svärd et al. 2011). The form is in
/// docs/formats/migrator.md. Measured on a writer of 16 bytes a page, it is less than half of what
/// zstd makes with the older version as its dictionary, and twenty times as fast; the bytes that it
/// leaves go through zstd with a batch's literals.

/// Appends the difference to `delta` and returns true when it takes at most `bytes_max`; else
/// leaves `delta` as it was.
bool append_delta(PageView older, PageView newer, std::size_t bytes_max,
                  std::vector<std::byte>& delta);

/// Turns the older version, which `page` holds, into the newer one, and returns what lies behind
/// the difference in `bytes`. kCorrupt: no append_delta() wrote this; `page` then holds garbage.
Result<std::span<const std::byte>> apply_delta(std::span<const std::byte> bytes, PageBuffer page);

}  // namespace samepage::migrator
