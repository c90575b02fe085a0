#include "imagestore/domain_key.h"

#include <cerrno>
#include <string>
#include <system_error>

#include <fcntl.h>
#include <sys/stat.h>

#include "core/fd.h"
#include "core/random_bytes.h"

namespace samepage::imagestore {
namespace {

tl::unexpected<Error> io_error(const std::filesystem::path& path) {
  return fail(Errc::kIo, path.string() + ": " + std::generic_category().message(errno));
}

Result<void> write_key(const std::filesystem::path& path, const DigestKey& key) {
  ::unlink(path.c_str());  // Of a process that was killed and whose number is ours now.
  const Fd fd(::open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600));
  if (!fd) return io_error(path);
  const ssize_t written = ::write(fd.get(), key.bytes.data(), key.bytes.size());
  if (written < 0) return io_error(path);
  if (static_cast<std::size_t>(written) != key.bytes.size()) {
    return fail(Errc::kIo, path.string() + ": the disk is full");
  }
  if (::fsync(fd.get()) != 0) return io_error(path);
  return {};
}

}  // namespace

Result<DigestKey> read_key_file(const std::filesystem::path& path) {
  const Fd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!fd) {
    if (errno == ENOENT) return fail(Errc::kNotFound, path.string() + ": no such key file");
    return io_error(path);
  }
  struct stat about {};
  if (::fstat(fd.get(), &about) != 0) return io_error(path);
  if ((about.st_mode & 077U) != 0) {
    return fail(Errc::kInvalid, path.string() + ": only its owner may have access; chmod 600 it");
  }
  DigestKey key;
  const ssize_t got = ::read(fd.get(), key.bytes.data(), key.bytes.size());
  if (got < 0) return io_error(path);
  if (about.st_size != static_cast<off_t>(key.bytes.size()) || got != about.st_size) {
    return fail(Errc::kInvalid, path.string() + ": not a key of 32 bytes");
  }
  return key;
}

Result<DigestKey> create_key_file(const std::filesystem::path& path) {
  DigestKey key;
  TRY(fill_random(key.bytes));
  const std::filesystem::path fresh = path.string() + "." + std::to_string(::getpid());
  auto written = write_key(fresh, key);
  // A link, unlike a rename, never replaces a key that another process made meanwhile.
  const bool linked = written && ::link(fresh.c_str(), path.c_str()) == 0;
  const int link_error = errno;
  ::unlink(fresh.c_str());
  if (!written) return tl::unexpected(std::move(written).error());
  if (!linked && link_error != EEXIST) {
    return fail(Errc::kIo, path.string() + ": " + std::generic_category().message(link_error));
  }
  const Fd folder(::open(path.parent_path().c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!folder || ::fsync(folder.get()) != 0) return io_error(path.parent_path());
  return read_key_file(path);
}

}  // namespace samepage::imagestore
