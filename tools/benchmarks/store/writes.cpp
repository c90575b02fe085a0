#include "tools/benchmarks/store/writes.h"

#include <algorithm>
#include <array>
#include <barrier>
#include <chrono>
#include <filesystem>
#include <fstream>
#include <mutex>
#include <random>
#include <thread>

#include <fcntl.h>
#include <nlohmann/json.hpp>
#include <unistd.h>

#include "core/fd.h"
#include "core/page.h"
#include "core/page_digest.h"
#include "imagestore/clone.h"
#include "imagestore/commit.h"
#include "imagestore/importer.h"

namespace samepage::bench {
namespace {

using imagestore::ImageStore;
using SteadyClock = std::chrono::steady_clock;

std::vector<std::byte> noise(std::size_t bytes, std::uint64_t seed) {
  std::mt19937_64 random(seed);
  std::vector<std::byte> made(bytes);
  for (std::size_t at = 0; at + 8 <= bytes; at += 8) {
    const std::uint64_t word = random();
    std::memcpy(&made[at], &word, 8);
  }
  return made;
}

/// An image of a few MiB to commit to and clone from.
Result<void> import_base(ImageStore& store, const std::filesystem::path& folder) {
  const auto path = folder / "base.raw";
  const auto bytes = noise(64U << 20U, 1);
  std::ofstream(path, std::ios::binary)
      .write(reinterpret_cast<const char*>(bytes.data()),
             static_cast<std::streamsize>(bytes.size()));
  const auto imported =
      imagestore::import_image(store, {.path = path, .name = "base"}, SystemClock());
  std::filesystem::remove(path);
  if (!imported) return tl::unexpected(imported.error());
  return {};
}

Result<void> commit_once(ImageStore& store, const std::string& image,
                         std::span<const std::byte> bytes) {
  const auto head = TRY(store.catalog().find(image)).head.id;
  const auto commit = TRY(imagestore::Commit::begin(store, {.image = image, .base = head}));
  TRY(commit->put(100, bytes));
  TRY(commit->finish(SystemClock()));
  return {};
}

}  // namespace

Result<Row> run_commits(const ImageStore::Options& options, std::uint64_t clients,
                        std::uint64_t bytes) {
  auto writable = options;
  writable.access = imagestore::DirOrigin::Access::kWrite;
  const auto main_store = TRY(ImageStore::open(writable));
  TRY(import_base(*main_store, options.folder));
  for (std::uint64_t i = 0; i < clients; ++i) {
    TRY(imagestore::clone_image(*main_store, {.source = "base", .name = "vm-" + std::to_string(i)},
                                SystemClock()));
  }
  Row row{.path = options.origin, .name = "commit", .clients = clients, .bytes = clients * bytes};
  std::mutex mutex;
  SteadyClock::time_point start;
  std::barrier opened(static_cast<std::ptrdiff_t>(clients),
                      [&]() noexcept { start = SteadyClock::now(); });
  {
    std::vector<std::jthread> threads;
    for (std::uint64_t i = 0; i < clients; ++i) {
      threads.emplace_back([&, i] {
        auto store = ImageStore::open(writable);
        const auto content = noise(bytes, 1'000 + i);
        opened.arrive_and_wait();
        const auto began = SteadyClock::now();
        const auto done = store ? commit_once(**store, "vm-" + std::to_string(i), content)
                                : Result<void>(tl::unexpected(store.error()));
        const auto ended = SteadyClock::now();
        const std::lock_guard lock(mutex);
        row.seconds = std::max(row.seconds, std::chrono::duration<double>(ended - start).count());
        row.latencies_us.push_back(
            std::chrono::duration<double, std::micro>(ended - began).count());
        if (done) return;
        ++row.failed;
        row.first_error = done.error().message();
      });
    }
  }
  return row;
}

Result<Row> run_clones(const ImageStore::Options& options, std::uint64_t count) {
  auto writable = options;
  writable.access = imagestore::DirOrigin::Access::kWrite;
  const auto store = TRY(ImageStore::open(writable));
  if (!store->catalog().find("base")) TRY(import_base(*store, options.folder));
  Row row{.path = options.origin, .name = "clone", .clients = count};
  const auto start = SteadyClock::now();
  for (std::uint64_t i = 0; i < count; ++i) {
    const auto began = SteadyClock::now();
    TRY(imagestore::clone_image(*store, {.source = "base", .name = "clone-" + std::to_string(i)},
                                SystemClock()));
    row.latencies_us.push_back(
        std::chrono::duration<double, std::micro>(SteadyClock::now() - began).count());
  }
  row.seconds = std::chrono::duration<double>(SteadyClock::now() - start).count();
  return row;
}

Result<nlohmann::json> run_imports(const ImageStore::Options& options,
                                   const std::vector<std::string>& files) {
  auto writable = options;
  writable.access = imagestore::DirOrigin::Access::kWrite;
  const auto store = TRY(ImageStore::open(writable));
  std::uint64_t size = 0;
  std::uint64_t data = 0;
  std::uint64_t unique = 0;
  std::uint64_t stored = 0;
  const auto start = SteadyClock::now();
  for (std::size_t i = 0; i < files.size(); ++i) {
    const auto report = TRY(imagestore::import_image(
        *store, {.path = files[i], .name = "image-" + std::to_string(i)}, SystemClock()));
    size += report.version.size_bytes;
    data += report.version.data_bytes;
    unique += report.version.new_bytes;
    stored += report.version.stored_bytes;
  }
  const double seconds = std::chrono::duration<double>(SteadyClock::now() - start).count();
  const auto ratio = [](std::uint64_t a, std::uint64_t b) {
    return static_cast<double>(a) / static_cast<double>(std::max<std::uint64_t>(b, 1));
  };
  return nlohmann::json{{"path", "dir:"},
                        {"case", "import"},
                        {"clients", files.size()},
                        {"seconds", seconds},
                        {"gb_s", static_cast<double>(data) / seconds / 1e9},
                        {"size_bytes", size},
                        {"data_bytes", data},
                        {"unique_bytes", unique},
                        {"stored_bytes", stored},
                        {"dedup", ratio(data, unique)},
                        {"dedup_with_zeros", ratio(size, unique)},
                        {"total", ratio(size, stored)}};
}

Result<void> import_in_order(const ImageStore::Options& options, const std::string& file,
                             const std::string& name, std::span<const Chunk> order,
                             std::size_t extent_pages) {
  auto writable = options;
  writable.access = imagestore::DirOrigin::Access::kWrite;
  const auto store = TRY(ImageStore::open(writable));
  imagestore::ImportOptions import{.path = file, .name = name};
  import.extent_pages = extent_pages;
  const Fd disk(::open(file.c_str(), O_RDONLY | O_CLOEXEC));
  std::array<std::byte, kPageSize> page{};
  for (const Chunk& chunk : order) {
    for (std::uint64_t at = chunk.offset; at < chunk.offset + chunk.bytes; at += kPageSize) {
      if (::pread(disk.get(), page.data(), page.size(), static_cast<off_t>(at)) !=
          ssize_t{kPageSize}) {
        return fail(Errc::kIo, file + " is short");
      }
      if (!is_zero(page)) import.order.push_back(digest_page(page, store->keys().pages));
    }
  }
  TRY(imagestore::import_image(*store, import, SystemClock()));
  return {};
}

}  // namespace samepage::bench
