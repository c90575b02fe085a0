#pragma once

#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <vector>

#include "core/result.h"

namespace samepage::bench {

struct Chunk {
  std::uint64_t offset = 0;
  std::uint32_t bytes = 0;
};

/// What a client reads: the chunks of a boot's reads in the order of their first touch, each once
/// (copy on reference keeps what was fetched), or a whole image, or random places.
///
/// The trace is a text of lines "offset bytes".
Result<std::vector<Chunk>> boot_reads(const std::filesystem::path& trace, std::uint64_t image_bytes,
                                      std::uint32_t chunk_bytes);

/// Every chunk of the file that is not a hole.
Result<std::vector<Chunk>> all_data(const std::filesystem::path& image, std::uint32_t chunk_bytes);

/// `count` of `among`, or pieces of them of `bytes`; the same for the same seed.
std::vector<Chunk> random_reads(std::span<const Chunk> among, std::size_t count,
                                std::uint32_t bytes, std::uint64_t seed);

std::uint64_t total_bytes(std::span<const Chunk> chunks);

}  // namespace samepage::bench
