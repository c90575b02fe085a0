#include "imagestore/raw_source.h"

#include <algorithm>
#include <cerrno>
#include <string>
#include <system_error>
#include <utility>

#include <fcntl.h>
#include <unistd.h>

#include "core/page.h"

namespace samepage::imagestore {
namespace {

tl::unexpected<Error> io_error(const std::string& what) {
  return fail(Errc::kIo, what + ": " + std::generic_category().message(errno));
}

class RawSource final : public ImageSource {
 public:
  RawSource(Fd fd, std::uint64_t size_bytes) : fd_(std::move(fd)), size_bytes_(size_bytes) {}

  std::uint64_t size_bytes() const override { return size_bytes_; }
  Result<std::optional<SourceBlock>> next() override;

 private:
  Result<void> find_data();

  Fd fd_;
  std::uint64_t size_bytes_;
  std::uint64_t position_ = 0;  // Page-aligned: everything before it was delivered or is a hole.
  std::uint64_t data_end_ = 0;  // Bytes from position_ up to here are data.
};

/// Moves over a hole. A file system that knows no holes is all data.
Result<void> RawSource::find_data() {
  const off_t data = ::lseek(fd_.get(), static_cast<off_t>(position_), SEEK_DATA);
  if (data < 0 && errno == ENXIO) {
    position_ = size_bytes_;
    return {};
  }
  if (data < 0) {
    if (errno != EINVAL && errno != EOPNOTSUPP) return io_error("find data");
    data_end_ = size_bytes_;
    return {};
  }
  const off_t hole = ::lseek(fd_.get(), data, SEEK_HOLE);
  if (hole < 0) return io_error("find a hole");
  position_ =
      std::max<std::uint64_t>(position_, static_cast<std::uint64_t>(data) / kPageSize * kPageSize);
  data_end_ = std::min<std::uint64_t>(static_cast<std::uint64_t>(hole), size_bytes_);
  return {};
}

Result<std::optional<SourceBlock>> RawSource::next() {
  if (position_ < size_bytes_ && position_ >= data_end_) TRY(find_data());
  if (position_ >= size_bytes_) return std::nullopt;
  const std::uint64_t wanted = std::min<std::uint64_t>(
      {kBlockBytes, (data_end_ - position_ + kPageSize - 1) / kPageSize * kPageSize});
  SourceBlock block{.first_page = position_ / kPageSize, .bytes = std::vector<std::byte>(wanted)};
  const std::uint64_t inside = std::min(wanted, size_bytes_ - position_);
  std::uint64_t done = 0;
  while (done < inside) {
    const ssize_t got = ::pread(fd_.get(), block.bytes.data() + done, inside - done,
                                static_cast<off_t>(position_ + done));
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return io_error("read at " + std::to_string(position_));
    if (got == 0) return fail(Errc::kIo, "the file became shorter while it was read");
    done += static_cast<std::uint64_t>(got);
  }
  position_ += wanted;
  return block;
}

}  // namespace

Result<std::unique_ptr<ImageSource>> open_raw_source(Fd fd) {
  const off_t size = ::lseek(fd.get(), 0, SEEK_END);
  if (size < 0) return io_error("find the size");
  // Advice: without it, it is slower.
  ::posix_fadvise(fd.get(), 0, 0, POSIX_FADV_SEQUENTIAL);
  return std::make_unique<RawSource>(std::move(fd), static_cast<std::uint64_t>(size));
}

}  // namespace samepage::imagestore
