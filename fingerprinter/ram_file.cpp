#include "fingerprinter/ram_file.h"

#include <algorithm>
#include <cerrno>
#include <string>
#include <system_error>
#include <utility>

#include <fcntl.h>
#include <unistd.h>

#include "core/fd.h"
#include "core/page.h"
#include "fingerprinter/read_fully.h"

namespace samepage::fingerprinter {
namespace {

tl::unexpected<Error> failed(const std::string& attempt) {
  return fail(Errc::kIo, attempt + ": " + std::generic_category().message(errno));
}

/// Read with pread(), which makes no page out of a hole, as a mapping does.
class RamFile final : public GuestMemory {
 public:
  RamFile(Fd file, std::uint64_t pages) : file_(std::move(file)), pages_(pages) {}

  std::uint64_t pages() const override { return pages_; }

  Result<std::vector<PageRun>> populated() override { return populated_within({0, pages_}); }

  Result<std::vector<PageRun>> populated_within(PageRun range) override {
    std::vector<PageRun> runs;
    const std::uint64_t end = range.first + range.count;
    for (std::uint64_t at = range.first; at < end;) {
      const off_t data = ::lseek(file_.get(), static_cast<off_t>(at * kPageSize), SEEK_DATA);
      if (data < 0 && errno == ENXIO) break;
      if (data < 0) return failed("SEEK_DATA");
      const off_t hole = ::lseek(file_.get(), data, SEEK_HOLE);
      if (hole < 0) return failed("SEEK_HOLE");
      const std::uint64_t first = static_cast<std::uint64_t>(data) / kPageSize;
      at = (static_cast<std::uint64_t>(hole) + kPageSize - 1) / kPageSize;
      if (first < end) runs.push_back({.first = first, .count = std::min(at, end) - first});
    }
    return runs;
  }

  Result<void> read(std::uint64_t first, std::span<std::byte> destination) override {
    return read_fully(file_, first * kPageSize, destination);
  }

 private:
  const Fd file_;
  const std::uint64_t pages_;
};

}  // namespace

Result<std::unique_ptr<GuestMemory>> open_ram_file(const std::filesystem::path& path) {
  Fd file(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!file && errno == ENOENT) return fail(Errc::kNotFound, "there is no " + path.string());
  if (!file) return failed(path.string());
  const off_t size = ::lseek(file.get(), 0, SEEK_END);
  if (size < 0) return failed(path.string());
  const auto bytes = static_cast<std::uint64_t>(size);
  if (bytes % kPageSize != 0) return fail(Errc::kIo, path.string() + " holds no whole pages");
  return std::make_unique<RamFile>(std::move(file), bytes / kPageSize);
}

}  // namespace samepage::fingerprinter
