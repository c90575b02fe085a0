#include "pagecache/checkpoint.h"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <system_error>
#include <utility>

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

namespace samepage::pagecache {
namespace {

constexpr std::uint64_t kPagesAtOnce = 256;
constexpr std::size_t kCleanUpMin = 4096;

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

}  // namespace

Result<std::unique_ptr<CheckpointWriter>> CheckpointWriter::create(const Options& options) {
  Fd file = TRY(nameless_file(options.folder));
  auto cipher = TRY(PageCipher::create());
  std::shared_ptr<Checkpoint> checkpoint(new Checkpoint(std::move(file), std::move(cipher)));
  return std::unique_ptr<CheckpointWriter>(new CheckpointWriter(options, std::move(checkpoint)));
}

CheckpointWriter::CheckpointWriter(const Options& options, std::shared_ptr<Checkpoint> checkpoint)
    : options_(options),
      checkpoint_(std::move(checkpoint)),
      run_(kPagesAtOnce * kPageSize),
      sealed_(kPagesAtOnce * kPageSize),
      clean_up_at_(kCleanUpMin) {}

CheckpointWriter::~CheckpointWriter() {
  ::explicit_bzero(run_.data(), run_.size());
}

void CheckpointWriter::put(std::uint64_t number, PageView page) {
  if (is_full_ || number > kPageNumberMax || is_zero(page)) return;
  if (count_ == kPagesAtOnce || (count_ > 0 && number != first_ + count_)) flush();
  if (count_ == 0) first_ = number;
  std::memcpy(run_.data() + count_ * kPageSize, page.data(), kPageSize);
  ++count_;
}

std::shared_ptr<const Checkpoint> CheckpointWriter::finish() {
  flush();
  drop_old_versions();
  is_full_ = true;
  return std::exchange(checkpoint_, nullptr);
}

void CheckpointWriter::flush() {
  const auto pages = std::span<const std::byte>(run_).first(count_ * kPageSize);
  const std::uint64_t count = std::exchange(count_, 0);
  if (count == 0 || is_full_) return;
  is_full_ = !has_room(pages.size());
  const auto sealed = std::span(sealed_).first(pages.size());
  if (is_full_ || !checkpoint_->cipher_->encrypt(first_, pages, sealed)) return;
  const auto offset = static_cast<off_t>(first_ * kPageSize);
  const ssize_t written = ::pwrite(checkpoint_->file_.get(), sealed.data(), sealed.size(), offset);
  is_full_ = written != static_cast<ssize_t>(sealed.size());
  const std::uint64_t whole = written < 0 ? 0 : static_cast<std::uint64_t>(written) / kPageSize;
  for (std::uint64_t i = 0; i < whole; ++i) {
    const PageView page = pages.subspan(i * kPageSize).first<kPageSize>();
    checkpoint_->pages_.push_back({first_ + i, hash_page(page, options_.seed)});
  }
}

bool CheckpointWriter::has_room(std::uint64_t more) {
  auto& pages = checkpoint_->pages_;
  if (pages.size() >= clean_up_at_ || checkpoint_->bytes() + more > options_.bytes_max) {
    drop_old_versions();
  }
  struct statvfs disk {};
  return checkpoint_->bytes() + more <= options_.bytes_max &&
         ::fstatvfs(checkpoint_->file_.get(), &disk) == 0 &&
         std::uint64_t{disk.f_bavail} * disk.f_frsize >= options_.disk_free_min + more;
}

void CheckpointWriter::drop_old_versions() {
  auto& pages = checkpoint_->pages_;
  const auto number = [](const fingerprinter::ScannedPage& page) { return page.page; };
  std::ranges::stable_sort(pages, {}, number);
  // Of equal ones unique() keeps the first it meets: the last version, from behind.
  const auto kept = std::ranges::unique(pages.rbegin(), pages.rend(), {}, number);
  pages.erase(pages.begin(), kept.begin().base());
  clean_up_at_ = std::max(kCleanUpMin, 2 * pages.size());
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
