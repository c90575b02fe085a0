#pragma once

#include <iosfwd>

#include "core/result.h"

namespace samepage::bench {

/// One budget of the packer; 0: the published heuristics instead.
struct PaginationRun {
  long budget_us = 0;
  unsigned threads = 1;
  bool with_packings = false;  ///< Write the packings down, not only their sizes.
};

/// Reads instances, one a line: `NAME CAPACITY ITEMS` and for each item `COUNT SYMBOL...`; writes
/// one JSON object a line. kInvalid: not such a line. kIo: a packing breaks its promises.
Result<void> run_pagination(const PaginationRun& run, std::istream& in, std::ostream& out);

}  // namespace samepage::bench
