#include "core/random_bytes.h"

#include <cerrno>
#include <system_error>

#include <sys/random.h>

namespace samepage {

Result<void> fill_random(std::span<std::byte> bytes) {
  while (!bytes.empty()) {
    const ssize_t count = ::getrandom(bytes.data(), bytes.size(), 0);
    if (count < 0 && errno == EINTR) continue;
    if (count <= 0) {
      return fail(Errc::kIo, "no randomness: " + std::generic_category().message(errno));
    }
    bytes = bytes.subspan(static_cast<std::size_t>(count));
  }
  return {};
}

}  // namespace samepage
