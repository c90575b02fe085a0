#include "pagecache/checkpoint.h"

#include <algorithm>
#include <cerrno>
#include <filesystem>
#include <system_error>

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

namespace samepage::pagecache {
namespace {

using fingerprinter::GuestMemory;
using fingerprinter::PageRun;

constexpr std::uint64_t kPagesAtOnce = 256;

std::string trouble() {
  return std::generic_category().message(errno);
}

/// A file of this process alone, that is gone with it.
Result<Fd> nameless_file(const std::string& folder) {
  std::error_code error;
  std::filesystem::create_directories(folder, error);
  Fd file(::open(folder.c_str(), O_TMPFILE | O_RDWR | O_CLOEXEC | O_EXCL, S_IRUSR | S_IWUSR));
  if (file) return file;
  // Not every file system can do that.
  std::string path = folder + "/checkpoint.XXXXXX";
  file = Fd(::mkostemp(path.data(), O_CLOEXEC));
  if (!file) return fail(Errc::kIo, "make a file in " + folder + ": " + trouble());
  if (::unlink(path.c_str()) != 0) return fail(Errc::kIo, "unlink " + path + ": " + trouble());
  return file;
}

bool has_room(int file, std::uint64_t free_min) {
  struct statvfs disk {};
  return ::fstatvfs(file, &disk) == 0 &&
         std::uint64_t{disk.f_bavail} * disk.f_frsize >= free_min + kPagesAtOnce * kPageSize;
}

}  // namespace

Result<std::shared_ptr<const Checkpoint>> Checkpoint::take(GuestMemory& memory,
                                                           const Options& options) {
  Fd file = TRY(nameless_file(options.folder));
  auto cipher = TRY(PageCipher::create());
  std::shared_ptr<Checkpoint> checkpoint(new Checkpoint(std::move(file), std::move(cipher)));
  auto copied = checkpoint->copy(memory, options);
  if (!copied && checkpoint->pages_.empty()) return tl::unexpected(std::move(copied).error());
  checkpoint->sealed_ = {};
  return std::shared_ptr<const Checkpoint>(std::move(checkpoint));
}

Result<void> Checkpoint::copy(GuestMemory& memory, const Options& options) {
  std::vector<std::byte> buffer(kPagesAtOnce * kPageSize);
  sealed_.resize(buffer.size());
  for (const PageRun& run : TRY(memory.populated())) {
    for (std::uint64_t done = 0; done < run.count; done += kPagesAtOnce) {
      const std::uint64_t count = std::min(kPagesAtOnce, run.count - done);
      const bool full = bytes() + count * kPageSize > options.bytes_max;
      if (full || options.stop.stop_requested()) return {};
      if (!has_room(file_.get(), options.disk_free_min)) return {};
      const auto pages = std::span(buffer).first(count * kPageSize);
      const auto read = memory.read(run.first + done, pages);
      if (!read && read.error().code() == Errc::kNotFound) return read;
      if (read) TRY(write(run.first + done, pages, options.seed));
    }
  }
  return {};
}

Result<void> Checkpoint::write(std::uint64_t first, std::span<const std::byte> pages,
                               HashSeed seed) {
  const auto sealed = std::span(sealed_).first(pages.size());
  TRY(cipher_->encrypt(first, pages, sealed));
  const auto offset = static_cast<off_t>(first * kPageSize);
  const ssize_t written = ::pwrite(file_.get(), sealed.data(), sealed.size(), offset);
  if (written < 0) return fail(Errc::kIo, "write a checkpoint: " + trouble());
  for (std::uint64_t at = 0; at + kPageSize <= static_cast<std::uint64_t>(written);
       at += kPageSize) {
    const PageView page = pages.subspan(at).first<kPageSize>();
    if (!is_zero(page)) pages_.push_back({first + at / kPageSize, hash_page(page, seed)});
  }
  return {};
}

Result<void> Checkpoint::read(std::uint64_t page, PageBuffer destination) const {
  const auto offset = static_cast<off_t>(page * kPageSize);
  const ssize_t got = ::pread(file_.get(), destination.data(), destination.size(), offset);
  if (got != static_cast<ssize_t>(kPageSize)) {
    return fail(Errc::kNotFound, "the checkpoint has no page " + std::to_string(page));
  }
  return cipher_->decrypt(page, destination);
}

}  // namespace samepage::pagecache
