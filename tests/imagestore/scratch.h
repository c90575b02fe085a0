#pragma once

#include <array>
#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <random>
#include <string>
#include <vector>

#include "core/page.h"
#include "imagestore/image_store.h"
#include "imagestore/importer.h"

namespace samepage::imagestore {

/// A folder for one test, removed with it.
class Scratch {
 public:
  Scratch() {
    std::string pattern = (std::filesystem::temp_directory_path() / "imagestore-XXXXXX").string();
    folder_ = ::mkdtemp(pattern.data());
  }
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;
  ~Scratch() {
    std::error_code ignored;
    std::filesystem::remove_all(folder_, ignored);
  }

  std::filesystem::path operator/(const std::string& name) const { return folder_ / name; }
  const std::filesystem::path& folder() const { return folder_; }

 private:
  std::filesystem::path folder_;
};

/// Bytes that do not compress; the same for the same seed.
inline std::vector<std::byte> random_bytes(std::size_t size, std::uint64_t seed) {
  std::mt19937_64 random(seed);
  std::vector<std::byte> bytes(size);
  for (std::byte& byte : bytes) byte = static_cast<std::byte>(random());
  return bytes;
}

/// Bytes like a disk's: runs of zeros, of text and of noise, some pages twice.
inline std::vector<std::byte> disk_bytes(std::size_t pages, std::uint64_t seed) {
  std::mt19937_64 random(seed);
  std::vector<std::byte> bytes(pages * kPageSize);
  for (std::size_t page = 0; page < pages; ++page) {
    std::byte* at = &bytes[page * kPageSize];
    const std::uint64_t kind = random() % 8;
    for (std::size_t i = 0; kind >= 3 && i < kPageSize; ++i) {
      at[i] = static_cast<std::byte>(kind >= 6 ? random() : (i * page + kind) % 61);
    }
    if (kind == 2 && page > 0) std::copy_n(at - kPageSize, kPageSize, at);
  }
  return bytes;
}

inline void write_file(const std::filesystem::path& path, std::span<const std::byte> bytes) {
  std::ofstream file(path, std::ios::binary | std::ios::trunc);
  file.write(reinterpret_cast<const char*>(bytes.data()),
             static_cast<std::streamsize>(bytes.size()));
}

inline std::vector<std::byte> read_file(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  const std::string text((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
  const auto bytes = std::as_bytes(std::span(text));
  return {bytes.begin(), bytes.end()};
}

inline std::unique_ptr<ImageStore> open_store(
    const std::filesystem::path& folder, DirOrigin::Access access = DirOrigin::Access::kWrite) {
  auto store = ImageStore::open({.folder = folder, .access = access});
  if (!store) std::cerr << store.error().message() << "\n";
  return std::move(store).value();
}

inline Result<ImportReport> import_file(ImageStore& store, const std::filesystem::path& path,
                                        const std::string& name) {
  const SystemClock clock;
  return import_image(store, {.path = path, .name = name}, clock);
}

/// A seed that differs from run to run, and is printed so that a failure can be run again with
/// SAMEPAGE_SEED.
inline std::uint64_t test_seed() {
  const char* given = std::getenv("SAMEPAGE_SEED");  // NOLINT(concurrency-mt-unsafe)
  const std::uint64_t seed =
      given != nullptr ? std::strtoull(given, nullptr, 10) : std::random_device()();
  std::cout << "SAMEPAGE_SEED=" << seed << "\n";
  return seed;
}

}  // namespace samepage::imagestore
