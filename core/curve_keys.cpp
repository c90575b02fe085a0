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

#include "core/check.h"
#include "core/fd.h"

namespace samepage {
namespace {

constexpr std::size_t kTextSize = 2 * kCurveKeyBytes;
constexpr std::string_view kHexDigits = "0123456789abcdef";
constexpr std::size_t kFileSizeMax = 1024;
constexpr std::string_view kPublicLabel = "public ";
constexpr std::string_view kSecretLabel = "secret ";

// ZeroMQ makes keys in its own text form.
using Z85Text = std::array<char, 41>;

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

std::string text_of(const Z85Text& key) {
  std::array<std::uint8_t, kCurveKeyBytes> bytes{};
  CHECK(zmq_z85_decode(bytes.data(), key.data()) != nullptr);
  return curve_key_text(bytes);
}

std::string public_key_of(const std::string& secret_key) {
  Z85Text secret{};
  Z85Text derived{};
  const auto bytes = curve_key_bytes(secret_key);
  zmq_z85_encode(secret.data(), bytes.data(), bytes.size());
  return zmq_curve_public(derived.data(), secret.data()) == 0 ? text_of(derived) : std::string();
}

bool are_a_pair(const CurveKeyPair& keys) {
  return is_curve_key(keys.public_key) && is_curve_key(keys.secret_key) &&
         public_key_of(keys.secret_key) == keys.public_key;
}

}  // namespace

Result<CurveKeyPair> generate_curve_keys() {
  Z85Text public_key{};
  Z85Text secret_key{};
  if (zmq_curve_keypair(public_key.data(), secret_key.data()) != 0) {
    return fail(Errc::kIo, std::string("make a key pair: ") + zmq_strerror(zmq_errno()));
  }
  return CurveKeyPair{text_of(public_key), text_of(secret_key)};
}

bool is_curve_key(std::string_view text) {
  return text.size() == kTextSize && text.find_first_not_of(kHexDigits) == std::string_view::npos;
}

std::array<std::uint8_t, kCurveKeyBytes> curve_key_bytes(std::string_view text) {
  CHECK(is_curve_key(text));
  std::array<std::uint8_t, kCurveKeyBytes> bytes{};
  for (std::size_t i = 0; i < bytes.size(); ++i) {
    const std::size_t high = kHexDigits.find(text[2 * i]);
    const std::size_t low = kHexDigits.find(text[2 * i + 1]);
    bytes[i] = static_cast<std::uint8_t>(high << 4 | low);
  }
  return bytes;
}

std::string curve_key_text(std::span<const std::uint8_t, kCurveKeyBytes> key) {
  std::string text;
  text.reserve(kTextSize);
  for (const std::uint8_t byte : key) {
    text += kHexDigits[byte >> 4];
    text += kHexDigits[byte & 0xf];
  }
  return text;
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
  if (!rest.empty() || !are_a_pair(keys)) {
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
