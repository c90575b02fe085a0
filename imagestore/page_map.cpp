#include "imagestore/page_map.h"

#include <array>
#include <cerrno>
#include <cstring>
#include <fstream>
#include <string>
#include <system_error>

#include <fcntl.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

#include "core/fd.h"
#include "core/page.h"

namespace samepage::imagestore {
namespace {

static_assert(std::atomic<std::uint8_t>::is_always_lock_free);

struct MapHeader {
  std::array<char, 8> mark{'S', 'P', 'p', 'a', 'g', 'm', 'a', 'p'};
  std::uint64_t kind = 0;
  std::uint64_t pages = 0;
  std::uint64_t boot = 0;

  friend bool operator==(const MapHeader&, const MapHeader&) = default;
};

/// Says which run of the kernel this is.
Result<std::uint64_t> boot_id() {
  std::ifstream file("/proc/sys/kernel/random/boot_id");
  std::string text;
  if (!(file >> text)) return fail(Errc::kIo, "the kernel does not say its boot id");
  return XXH3_64bits(text.data(), text.size());
}

tl::unexpected<Error> io_error(const std::filesystem::path& path) {
  return fail(Errc::kIo, path.string() + ": " + std::generic_category().message(errno));
}

std::size_t mapped_bytes(std::uint64_t pages) {
  return kPageSize + static_cast<std::size_t>(pages);
}

}  // namespace

PageMap::PageMap(void* mapped, std::uint64_t pages, bool was_kept)
    : mapped_(mapped),
      // The mapping is zeros or what this program stored: bytes either way.
      bytes_(reinterpret_cast<std::atomic<std::uint8_t>*>(static_cast<char*>(mapped) + kPageSize)),
      pages_(pages),
      was_kept_(was_kept) {}

PageMap::PageMap(PageMap&& other) noexcept
    : mapped_(std::exchange(other.mapped_, nullptr)),
      bytes_(other.bytes_),
      pages_(other.pages_),
      was_kept_(other.was_kept_) {}

PageMap::~PageMap() {
  if (mapped_ != nullptr) ::munmap(mapped_, mapped_bytes(pages_));
}

Result<PageMap> PageMap::open(const std::filesystem::path& path, std::uint64_t pages,
                              std::uint64_t mark) {
  MapHeader expected;
  expected.kind = mark;
  expected.pages = pages;
  expected.boot = TRY(boot_id());
  const Fd fd(::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600));
  if (!fd) return io_error(path);
  // Whoever begins the file anew does so alone.
  if (::flock(fd.get(), LOCK_EX) != 0) return io_error(path);
  const auto bytes = static_cast<off_t>(mapped_bytes(pages));
  MapHeader found;
  found.mark = {};
  struct stat about {};
  if (::fstat(fd.get(), &about) != 0) return io_error(path);
  const bool is_whole = about.st_size == bytes;
  if (is_whole && ::pread(fd.get(), &found, sizeof found, 0) != ssize_t{sizeof found}) {
    return io_error(path);
  }
  const bool was_kept = is_whole && found == expected;
  if (!was_kept) {
    if (::ftruncate(fd.get(), 0) != 0) return io_error(path);
    // Given room now: a full disk must not be met by a store to the mapping.
    if (const int full = ::posix_fallocate(fd.get(), 0, bytes); full != 0) {
      errno = full;
      return io_error(path);
    }
    if (::pwrite(fd.get(), &expected, sizeof expected, 0) != ssize_t{sizeof expected}) {
      return io_error(path);
    }
  }
  void* mapped =
      ::mmap(nullptr, mapped_bytes(pages), PROT_READ | PROT_WRITE, MAP_SHARED, fd.get(), 0);
  if (mapped == MAP_FAILED) return io_error(path);
  PageMap map(mapped, pages, was_kept);
  // The mapping would keep the lock with the file open.
  if (::flock(fd.get(), LOCK_UN) != 0) return io_error(path);
  return map;
}

}  // namespace samepage::imagestore
