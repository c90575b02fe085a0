#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "imagestore/image_store.h"
#include "tools/benchmarks/store/clients.h"

namespace samepage::bench {

/// `clients` threads, each with a store and a clone of its own, commit `bytes` of new content at
/// once. The time is from the first put to the last version that is durable.
Result<Row> run_commits(const imagestore::ImageStore::Options& store, std::uint64_t clients,
                        std::uint64_t bytes);

/// `count` clones, one after the other.
Result<Row> run_clones(const imagestore::ImageStore::Options& store, std::uint64_t count);

/// Imports images one after the other and says how much of each was new.
Result<nlohmann::json> run_imports(const imagestore::ImageStore::Options& store,
                                   const std::vector<std::string>& files);

/// Imports an image in the order of its boot's reads.
Result<void> import_in_order(const imagestore::ImageStore::Options& store, const std::string& file,
                             const std::string& name, std::span<const Chunk> order,
                             std::size_t extent_pages);

}  // namespace samepage::bench
