#include "fingerprinter/read_fully.h"

#include <cerrno>
#include <system_error>

#include <unistd.h>

namespace samepage::fingerprinter {

Result<void> read_fully(const Fd& file, std::uint64_t offset, std::span<std::byte> destination) {
  while (!destination.empty()) {
    const ssize_t got =
        ::pread(file.get(), destination.data(), destination.size(), static_cast<off_t>(offset));
    if (got < 0) {
      return fail(Errc::kIo, "reading RAM: " + std::generic_category().message(errno));
    }
    if (got == 0) return fail(Errc::kIo, "the RAM ends too early");
    destination = destination.subspan(static_cast<std::size_t>(got));
    offset += static_cast<std::uint64_t>(got);
  }
  return {};
}

}  // namespace samepage::fingerprinter
