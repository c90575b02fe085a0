#include "tools/benchmarks/store/read_set.h"

#include <algorithm>
#include <fstream>
#include <numeric>
#include <random>
#include <unordered_set>

#include <fcntl.h>
#include <unistd.h>

#include "core/fd.h"

namespace samepage::bench {

Result<std::vector<Chunk>> boot_reads(const std::filesystem::path& trace, std::uint64_t image_bytes,
                                      std::uint32_t chunk_bytes) {
  std::ifstream file(trace);
  if (!file) return fail(Errc::kNotFound, trace.string() + " cannot be read");
  std::vector<Chunk> chunks;
  std::unordered_set<std::uint64_t> seen;
  std::uint64_t offset = 0;
  std::uint64_t bytes = 0;
  while (file >> offset >> bytes) {
    const std::uint64_t end = std::min(offset + bytes, image_bytes);
    for (std::uint64_t at = offset / chunk_bytes * chunk_bytes; at < end; at += chunk_bytes) {
      if (!seen.insert(at).second) continue;
      const auto left = std::min<std::uint64_t>(chunk_bytes, image_bytes - at);
      chunks.push_back({.offset = at, .bytes = static_cast<std::uint32_t>(left)});
    }
  }
  if (chunks.empty()) return fail(Errc::kInvalid, trace.string() + " holds no reads");
  return chunks;
}

Result<std::vector<Chunk>> all_data(const std::filesystem::path& image, std::uint32_t chunk_bytes) {
  const Fd file(::open(image.c_str(), O_RDONLY | O_CLOEXEC));
  if (!file) return fail(Errc::kNotFound, image.string() + " cannot be opened");
  const off_t size = ::lseek(file.get(), 0, SEEK_END);
  std::vector<Chunk> chunks;
  off_t next = 0;
  for (off_t data = ::lseek(file.get(), 0, SEEK_DATA); data >= 0 && data < size;
       data = ::lseek(file.get(), next, SEEK_DATA)) {
    const off_t hole = ::lseek(file.get(), data, SEEK_HOLE);
    for (off_t at = data / chunk_bytes * chunk_bytes; at < hole; at += chunk_bytes) {
      if (at < next) continue;
      chunks.push_back({.offset = static_cast<std::uint64_t>(at),
                        .bytes = static_cast<std::uint32_t>(
                            std::min<off_t>(static_cast<off_t>(chunk_bytes), size - at))});
      next = at + static_cast<off_t>(chunk_bytes);
    }
    next = std::max(next, hole);
  }
  return chunks;
}

std::vector<Chunk> random_reads(std::span<const Chunk> among, std::size_t count,
                                std::uint32_t bytes, std::uint64_t seed) {
  std::mt19937_64 random(seed);
  std::vector<Chunk> chosen;
  while (chosen.size() < count) {
    const Chunk& chunk = among[random() % among.size()];
    if (chunk.bytes < bytes) continue;
    const std::uint64_t pieces = chunk.bytes / bytes;
    chosen.push_back({.offset = chunk.offset + random() % pieces * bytes, .bytes = bytes});
  }
  return chosen;
}

std::uint64_t total_bytes(std::span<const Chunk> chunks) {
  return std::accumulate(chunks.begin(), chunks.end(), std::uint64_t{0},
                         [](std::uint64_t sum, const Chunk& chunk) { return sum + chunk.bytes; });
}

}  // namespace samepage::bench
