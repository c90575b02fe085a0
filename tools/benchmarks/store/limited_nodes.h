#pragma once

#include <cstdint>

#include <nlohmann/json_fwd.hpp>

#include "tools/benchmarks/store/store_reader.h"

namespace samepage::bench {

struct LimitedOptions {
  std::size_t nodes = 1;
  std::size_t clients = 16;
  double bytes_per_s = 100e6;  ///< That one node sends at most.
  double seconds = 3;
  bool changes = false;  ///< A node joins and one leaves meanwhile.
};

/// Clients that read all extents in random order from nodes of limited bandwidth, so that what is
/// measured is how the reads are spread, not this machine's processors. The row's `moved_share` is
/// what changes moved, at most; `failed` counts reads.
Result<nlohmann::json> run_limited(const LimitedOptions& options, const ExtentMap& map,
                                   std::span<const Chunk> chunks,
                                   const imagestore::ImageStore::Options& store);

}  // namespace samepage::bench
