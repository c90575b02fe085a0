// Preloaded into QEMU (LD_PRELOAD), it lets the agent see which pages a guest writes: it opens a
// userfaultfd, which only the process itself can do, and leaves it open. Nothing is watched until
// the agent has taken a copy of the descriptor (fingerprinter/userfault.h). Where the kernel allows
// none, the guest runs without it, and the agent looks for changes in another way.

#define _GNU_SOURCE
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <sys/syscall.h>
#include <unistd.h>

__attribute__((constructor)) static void open_userfault(void) {
  (void)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK | UFFD_USER_MODE_ONLY);
}
