#include "core/curve_keys.h"

#include <array>
#include <cerrno>
#include <cstdint>
#include <cstdio>
#include <string_view>
#include <system_error>

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zmq.h>

#include "core/fd.h"

namespace samepage {
namespace {

constexpr std::size_t kKeySize = 40;
constexpr std::size_t kFileSizeMax = 1024;
constexpr std::string_view kPublicLabel = "public ";
constexpr std::string_view kSecretLabel = "secret ";

using KeyText = std::array<char, kKeySize + 1>;

tl::unexpected<Error> io_failure(const std::string& what) {
  return fail(Errc::kIo, what + ": " + std::generic_category().message(errno));
}

Result<void> write_all(const Fd& fd, std::string_view text, const std::string& path) {
  while (!text.empty()) {
    const ssize_t written = ::write(fd.get(), text.data(), text.size());
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) return io_failure("write " + path);
    text.remove_prefix(static_cast<std::size_t>(written));
  }
  if (::fsync(fd.get()) != 0) return io_failure("flush " + path);
  return {};
}

Result<std::string> read_up_to_max(const Fd& fd, const std::string& path) {
  std::array<char, kFileSizeMax> buffer{};
  std::size_t size = 0;
  while (size < buffer.size()) {
    const ssize_t got = ::read(fd.get(), buffer.data() + size, buffer.size() - size);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return io_failure("read " + path);
    if (got == 0) break;
    size += static_cast<std::size_t>(got);
  }
  return std::string(buffer.data(), size);
}

Result<void> flush_folder_of(const std::string& path) {
  const std::size_t slash = path.rfind('/');
  const std::string folder = slash == std::string::npos ? "." : path.substr(0, slash + 1);
  const Fd fd(::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!fd || ::fsync(fd.get()) != 0) return io_failure("flush " + folder);
  return {};
}

/// The text between a label at the front and the end of the line; both are taken off.
std::string take_line(std::string_view& text, std::string_view label) {
  const std::size_t end = text.find('\n');
  if (end == std::string_view::npos || !text.starts_with(label)) return {};
  std::string value(text.substr(label.size(), end - label.size()));
  text.remove_prefix(end + 1);
  return value;
}

}  // namespace

Result<CurveKeyPair> generate_curve_keys() {
  KeyText public_key{};
  KeyText secret_key{};
  if (zmq_curve_keypair(public_key.data(), secret_key.data()) != 0) {
    return fail(Errc::kIo, std::string("make a key pair: ") + zmq_strerror(zmq_errno()));
  }
  return CurveKeyPair{public_key.data(), secret_key.data()};
}

bool is_curve_key(std::string_view text) {
  if (text.size() != kKeySize) return false;
  std::array<std::uint8_t, 32> binary{};
  return zmq_z85_decode(binary.data(), std::string(text).c_str()) != nullptr;
}

Result<void> save_curve_keys(const CurveKeyPair& keys, const std::string& path) {
  const std::string draft = path + ".new";
  ::unlink(draft.c_str());
  const Fd fd(::open(draft.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600));
  if (!fd) return io_failure("make " + draft);

  auto kept = write_all(fd,
                        std::string(kPublicLabel) + keys.public_key + "\n" +
                            std::string(kSecretLabel) + keys.secret_key + "\n",
                        draft);
  // link() refuses to replace an identity; rename() would not.
  if (kept && ::link(draft.c_str(), path.c_str()) != 0) {
    kept = errno == EEXIST ? fail(Errc::kInvalid, path + " exists already")
                           : io_failure("make " + path);
  }
  ::unlink(draft.c_str());
  TRY(std::move(kept));
  return flush_folder_of(path);
}

Result<CurveKeyPair> load_curve_keys(const std::string& path) {
  const Fd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!fd && errno == ENOENT) return fail(Errc::kNotFound, "there is no key file " + path);
  if (!fd) return io_failure("open " + path);
  struct stat status {};
  if (::fstat(fd.get(), &status) != 0) return io_failure("stat " + path);
  if ((status.st_mode & (S_IRWXG | S_IRWXO)) != 0) {
    return fail(Errc::kInvalid, path + " holds a secret that others may read: chmod 600 " + path);
  }

  const std::string content = TRY(read_up_to_max(fd, path));
  std::string_view rest = content;
  CurveKeyPair keys;
  keys.public_key = take_line(rest, kPublicLabel);
  keys.secret_key = take_line(rest, kSecretLabel);
  KeyText derived{};
  if (!is_curve_key(keys.public_key) || !is_curve_key(keys.secret_key) || !rest.empty() ||
      zmq_curve_public(derived.data(), keys.secret_key.c_str()) != 0 ||
      keys.public_key != derived.data()) {
    return fail(Errc::kCorrupt, path + " holds no key pair: delete it, start again and enrol anew");
  }
  return keys;
}

Result<CurveKeyPair> load_or_make_curve_keys(const std::string& path) {
  auto loaded = load_curve_keys(path);
  if (loaded || loaded.error().code() != Errc::kNotFound) return loaded;
  const auto keys = TRY(generate_curve_keys());
  TRY(save_curve_keys(keys, path));
  return keys;
}

}  // namespace samepage
