#include "imagestore/mirror.h"

#include <cerrno>
#include <string>
#include <system_error>

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>

#include "core/page.h"

namespace samepage::imagestore {
namespace {

constexpr std::uint64_t kMapMark = 0x726f7272696d01;

tl::unexpected<Error> io_error(const std::filesystem::path& path) {
  return fail(Errc::kIo, path.string() + ": " + std::generic_category().message(errno));
}

/// The folder, made when it is missing, locked as shared: nobody removes it meanwhile.
Result<Fd> lock_folder(const std::filesystem::path& path) {
  constexpr int kTriesMax = 100;
  for (int i = 0; i < kTriesMax; ++i) {
    std::error_code error;
    std::filesystem::create_directories(path, error);
    if (error) return fail(Errc::kIo, "create " + path.string() + ": " + error.message());
    Fd lock(::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    if (!lock) continue;
    if (::flock(lock.get(), LOCK_SH) != 0) return io_error(path);
    struct stat about {};
    // Removed between the two: begin again.
    if (::fstat(lock.get(), &about) == 0 && about.st_nlink > 0) return lock;
  }
  return fail(Errc::kIo, path.string() + ": it is removed again and again");
}

}  // namespace

Result<std::unique_ptr<Mirror>> Mirror::open(const std::filesystem::path& folder,
                                             const VersionId& version, std::uint64_t pages) {
  const auto path = folder / to_hex(version);
  Fd lock = TRY(lock_folder(path));
  Fd data(::open((path / "data").c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600));
  if (!data) return io_error(path / "data");
  if (::ftruncate(data.get(), static_cast<off_t>(pages * kPageSize)) != 0) {
    return io_error(path / "data");
  }
  PageMap map = TRY(PageMap::open(path / "map", pages, kMapMark));
  return std::unique_ptr<Mirror>(new Mirror(std::move(lock), std::move(data), std::move(map)));
}

StateRun Mirror::run_at(std::uint64_t first, std::uint64_t end) const {
  const std::uint8_t state = map_[first];
  StateRun run{.first = first, .count = 1, .state = static_cast<PageState>(state)};
  while (first + run.count < end && map_[first + run.count] == state) ++run.count;
  return run;
}

Result<void> Mirror::read(std::uint64_t offset, std::span<std::byte> bytes) const {
  while (!bytes.empty()) {
    const auto got = ::pread(data_.get(), bytes.data(), bytes.size(), static_cast<off_t>(offset));
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) return io_error("read what was fetched before");
    bytes = bytes.subspan(static_cast<std::size_t>(got));
    offset += static_cast<std::uint64_t>(got);
  }
  return {};
}

Result<void> Mirror::put(std::uint64_t first, std::span<const std::byte> pages) {
  const std::uint64_t count = pages.size() / kPageSize;
  std::uint64_t offset = first * kPageSize;
  while (!pages.empty()) {
    const auto written =
        ::pwrite(data_.get(), pages.data(), pages.size(), static_cast<off_t>(offset));
    if (written < 0 && errno == EINTR) continue;
    if (written <= 0) return io_error("keep what was fetched");
    pages = pages.subspan(static_cast<std::size_t>(written));
    offset += static_cast<std::uint64_t>(written);
  }
  for (std::uint64_t page = first; page < first + count; ++page) {
    map_[page] = static_cast<std::uint8_t>(PageState::kWritten);
  }
  return {};
}

void Mirror::put_zeros(std::uint64_t first, std::uint64_t count) {
  for (std::uint64_t page = first; page < first + count; ++page) {
    map_[page] = static_cast<std::uint8_t>(PageState::kZero);
  }
}

Result<bool> Mirror::remove_unused(const std::filesystem::path& mirror) {
  const Fd lock(::open(mirror.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!lock) return true;
  if (::flock(lock.get(), LOCK_EX | LOCK_NB) != 0) return false;
  std::error_code error;
  std::filesystem::remove_all(mirror, error);
  if (error) return fail(Errc::kIo, "remove " + mirror.string() + ": " + error.message());
  return true;
}

}  // namespace samepage::imagestore
