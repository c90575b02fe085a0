#include "fingerprinter/userfault.h"

#include <array>
#include <cerrno>
#include <filesystem>
#include <string>
#include <system_error>
#include <utility>

#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>

namespace samepage::fingerprinter {
namespace {

constexpr std::uint64_t kFeatureUnpopulated = 1U << 13U;  // UFFD_FEATURE_WP_UNPOPULATED
constexpr std::uint64_t kFeatureAsync = 1U << 15U;        // UFFD_FEATURE_WP_ASYNC
constexpr std::size_t kDescriptorsMax = 65'536;

std::string reason(int number) {
  return std::generic_category().message(number);
}

/// The number of the other process's userfaultfd; -1 when there is none.
int find_descriptor(const std::string& folder) {
  std::error_code error;
  std::size_t seen = 0;
  for (std::filesystem::directory_iterator at(folder, error), end; !error && at != end;
       at.increment(error)) {
    if (++seen > kDescriptorsMax) break;
    const auto target = std::filesystem::read_symlink(at->path(), error);
    if (error) {
      error.clear();  // Closed meanwhile.
      continue;
    }
    if (target == "anon_inode:[userfaultfd]") return std::stoi(at->path().filename());
  }
  return -1;
}

bool prepare(const Fd& userfault) {
  uffdio_api api{};
  api.api = UFFD_API;
  api.features = kFeatureUnpopulated | kFeatureAsync;
  return ::ioctl(userfault.get(), UFFDIO_API, &api) == 0;
}

}  // namespace

Result<Fd> make_userfault() {
  Fd made(
      static_cast<int>(::syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK | UFFD_USER_MODE_ONLY)));
  if (!made) return fail(Errc::kInvalid, "userfaultfd: " + reason(errno));
  return made;
}

Result<Fd> take_userfault(const GuestProcess& process) {
  const std::string folder = "/proc/" + std::to_string(process.pid()) + "/fd";
  const int number = find_descriptor(folder);
  if (number < 0) {
    if (!process.alive()) return tl::unexpected(process.blame(folder));
    return fail(Errc::kInvalid, "QEMU holds no userfaultfd: it was started without the preload");
  }
  Fd taken(static_cast<int>(::syscall(SYS_pidfd_getfd, process.pidfd().get(), number, 0)));
  if (!taken) return tl::unexpected(process.blame("pidfd_getfd: " + reason(errno)));
  return taken;
}

Result<void> note_writes(const Fd& userfault) {
  if (prepare(userfault)) return {};
  // Refused because it was prepared before, by an agent that was here earlier? Then a new one of
  // this process is not refused, and watch() works.
  const Fd fresh = TRY(make_userfault());
  if (prepare(fresh)) return {};
  return fail(Errc::kInvalid, "this kernel has no asynchronous write protection: Linux 6.7 has");
}

Result<void> watch(const Fd& userfault, std::uint64_t address, std::uint64_t bytes) {
  uffdio_register range{};
  range.range = {address, bytes};
  range.mode = UFFDIO_REGISTER_MODE_WP;
  if (::ioctl(userfault.get(), UFFDIO_REGISTER, &range) == 0) return {};
  return fail(Errc::kIo, "UFFDIO_REGISTER: " + reason(errno));
}

void unwatch(const Fd& userfault, std::uint64_t address, std::uint64_t bytes) {
  uffdio_range range{address, bytes};
  ::ioctl(userfault.get(), UFFDIO_UNREGISTER, &range);
}

}  // namespace samepage::fingerprinter
