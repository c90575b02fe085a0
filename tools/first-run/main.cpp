// The step that makes a VM which was forked from a template somebody of its own. It runs inside the
// guest, so it is one static program that needs nothing there. docs/guest.md.

#include <cstdio>

#include <fcntl.h>
#include <sys/file.h>

#include "core/fd.h"
#include "tools/first-run/linux_guest.h"

int main() {
  const samepage::Fd lock(
      ::open("/run/samepage-first-run.lock", O_CREAT | O_RDWR | O_CLOEXEC, 0600));
  if (!lock || ::flock(lock.get(), LOCK_EX) != 0) {
    std::perror("samepage: /run/samepage-first-run.lock");
    return 1;
  }
  samepage::first_run::LinuxGuest guest;
  const auto done = samepage::first_run::FirstRun("/", guest).run();
  if (!done) std::fprintf(stderr, "samepage: %s\n", done.error().message().c_str());
  return done ? 0 : 1;
}
