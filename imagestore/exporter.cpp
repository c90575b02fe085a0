#include "imagestore/exporter.h"

#include <array>
#include <cerrno>
#include <system_error>
#include <utility>
#include <vector>

#include <fcntl.h>
#include <unistd.h>

#include "core/fd.h"
#include "core/page.h"
#include "imagestore/image_reader.h"

namespace samepage::imagestore {
namespace {

constexpr std::size_t kWriteBytesMax = 1U << 20U;
constexpr std::uint64_t kProgressPages = 4096;

tl::unexpected<Error> io_error(const std::filesystem::path& path) {
  return fail(Errc::kIo, path.string() + ": " + std::generic_category().message(errno));
}

/// A file without a name, until publish() gives it one.
class Draft {
 public:
  static Result<Draft> create(const std::filesystem::path& path, std::uint64_t size_bytes) {
    const auto folder = path.has_parent_path() ? path.parent_path() : std::filesystem::path(".");
    Fd fd(::open(folder.c_str(), O_TMPFILE | O_WRONLY | O_CLOEXEC, 0600));
    if (!fd) return io_error(folder);
    if (::ftruncate(fd.get(), static_cast<off_t>(size_bytes)) != 0) return io_error(path);
    return Draft(std::move(fd), path, size_bytes);
  }

  /// Adds page `page`, not below one added before; gaps stay holes.
  Result<void> add(std::uint64_t page, PageView bytes) {
    const std::uint64_t offset = page * kPageSize;
    if (offset != offset_ + pending_.size() || pending_.size() >= kWriteBytesMax) {
      TRY(flush());
      offset_ = offset;
    }
    const std::uint64_t inside = std::min<std::uint64_t>(kPageSize, size_bytes_ - offset);
    pending_.insert(pending_.end(), bytes.begin(),
                    bytes.begin() + static_cast<std::ptrdiff_t>(inside));
    return {};
  }

  Result<void> publish() {
    TRY(flush());
    if (::fsync(fd_.get()) != 0) return io_error(path_);
    const std::string self = "/proc/self/fd/" + std::to_string(fd_.get());
    if (::linkat(AT_FDCWD, self.c_str(), AT_FDCWD, path_.c_str(), AT_SYMLINK_FOLLOW) == 0)
      return {};
    if (errno == EEXIST) return fail(Errc::kInvalid, path_.string() + " exists already");
    return io_error(path_);
  }

 private:
  Draft(Fd fd, std::filesystem::path path, std::uint64_t size_bytes)
      : fd_(std::move(fd)), path_(std::move(path)), size_bytes_(size_bytes) {}

  Result<void> flush() {
    std::size_t done = 0;
    while (done < pending_.size()) {
      const ssize_t written = ::pwrite(fd_.get(), pending_.data() + done, pending_.size() - done,
                                       static_cast<off_t>(offset_ + done));
      if (written < 0 && errno == EINTR) continue;
      if (written < 0) return io_error(path_);
      done += static_cast<std::size_t>(written);
    }
    offset_ += done;
    pending_.clear();
    return {};
  }

  Fd fd_;
  std::filesystem::path path_;
  std::uint64_t size_bytes_ = 0;
  std::uint64_t offset_ = 0;
  std::vector<std::byte> pending_;
};

}  // namespace

Result<void> export_image(ImageStore& store, const std::string& image, std::uint64_t number,
                          const std::filesystem::path& path,
                          const std::function<bool(const ImportProgress&)>& on_progress) {
  const auto reader = TRY(ImageReader::open(store, image, number));
  std::error_code error;
  if (std::filesystem::exists(std::filesystem::symlink_status(path, error))) {
    return fail(Errc::kInvalid, path.string() + " exists already");
  }
  Draft draft = TRY(Draft::create(path, reader->size_bytes()));
  std::array<std::byte, kPageSize> bytes;
  const std::uint64_t pages = pages_in(reader->size_bytes());
  for (std::uint64_t page = 0; page < pages; ++page) {
    if (TRY(reader->read_page(page, bytes))) TRY(draft.add(page, bytes));
    if (on_progress && page % kProgressPages == 0 &&
        !on_progress({.bytes_done = page * kPageSize, .bytes_total = reader->size_bytes()})) {
      return fail(Errc::kUnavailable, "cancelled; nothing was written");
    }
  }
  TRY(draft.publish());
  if (on_progress) {
    // The file is there: what the callback answers changes nothing.
    static_cast<void>(
        on_progress({.bytes_done = reader->size_bytes(), .bytes_total = reader->size_bytes()}));
  }
  return {};
}

}  // namespace samepage::imagestore
