#include "fingerprinter/ram_file.h"

#include <cerrno>
#include <string>
#include <system_error>
#include <utility>

#include <fcntl.h>
#include <unistd.h>

#include "core/fd.h"
#include "core/page.h"
#include "fingerprinter/file_data.h"
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
    return data_runs(file_, range);
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
