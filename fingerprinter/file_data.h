#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "core/fd.h"
#include "core/result.h"
#include "fingerprinter/guest_memory.h"

namespace samepage::fingerprinter {

// What a sparse file holds, in pages of the file. Looking makes no page out of a hole.
// kIo: the kernel refused.

/// The first page from `page` on that holds data; empty: only a hole follows.
Result<std::optional<std::uint64_t>> next_data(const Fd& file, std::uint64_t page);

/// The page after the run of data that `page` is in.
Result<std::uint64_t> next_hole(const Fd& file, std::uint64_t page);

/// The runs of data within a range. A page that holds some data is whole.
Result<std::vector<PageRun>> data_runs(const Fd& file, PageRun range);

}  // namespace samepage::fingerprinter
