#include "imagestore/sandbox.h"

#include <cerrno>
#include <string>
#include <system_error>

#include <fcntl.h>
#include <linux/landlock.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "core/fd.h"

namespace samepage::imagestore {
namespace {

constexpr std::uint64_t kRead = LANDLOCK_ACCESS_FS_READ_FILE;
constexpr std::uint64_t kReadBelow = LANDLOCK_ACCESS_FS_READ_FILE | LANDLOCK_ACCESS_FS_EXECUTE;

tl::unexpected<Error> io_error(std::string_view what) {
  return fail(Errc::kIo, std::string(what) + ": " + std::generic_category().message(errno));
}

Result<void> allow(const Fd& ruleset, int fd, std::uint64_t access) {
  const landlock_path_beneath_attr rule{.allowed_access = access, .parent_fd = fd};
  if (::syscall(SYS_landlock_add_rule, ruleset.get(), LANDLOCK_RULE_PATH_BENEATH, &rule, 0) != 0) {
    return io_error("landlock_add_rule");
  }
  return {};
}

}  // namespace

Result<bool> restrict_thread_to(std::initializer_list<std::string_view> folders_to_read, int file) {
  const landlock_ruleset_attr handled{.handled_access_fs = LANDLOCK_ACCESS_FS_READ_FILE |
                                                           LANDLOCK_ACCESS_FS_WRITE_FILE |
                                                           LANDLOCK_ACCESS_FS_EXECUTE};
  const Fd ruleset(static_cast<int>(
      ::syscall(SYS_landlock_create_ruleset, &handled, sizeof(handled.handled_access_fs), 0)));
  if (!ruleset) {
    if (errno == ENOSYS || errno == EOPNOTSUPP) return false;
    return io_error("landlock_create_ruleset");
  }
  for (const std::string_view folder : folders_to_read) {
    const Fd fd(::open(std::string(folder).c_str(), O_PATH | O_CLOEXEC));
    if (fd) TRY(allow(ruleset, fd.get(), kReadBelow));  // A folder that is not there needs no rule.
  }
  TRY(allow(ruleset, file, kRead));
  if (::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0) return io_error("PR_SET_NO_NEW_PRIVS");
  if (::syscall(SYS_landlock_restrict_self, ruleset.get(), 0) != 0) {
    return io_error("landlock_restrict_self");
  }
  return true;
}

}  // namespace samepage::imagestore
