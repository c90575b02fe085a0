// The whole user space of a lab guest: /init of its initramfs, one static program.
//
// It fills guest memory with data whose sharing is known, works on that memory in the way its
// role says, and prints a heartbeat on ttyS0, so that "the guest still runs" can be seen from
// outside. Settings come from the kernel command line as samepage.<key>=<value>.
//
//   image      every guest with the same image name has the same data, page for page:
//              image_mib MiB of files on a tmpfs (guest page cache). Even pages are incompressible,
//              odd pages are a 1 KiB paragraph repeated four times.
//   own_mib    files of data that no other guest has, not even the same guest started again.
//   role       idle    heartbeat only
//              web     `rate` times a second reads 64 KiB of a random image file and sums it
//              sparse  writes 16 bytes in each of `rate` pages a second, in turn over write_mib
//              random  rewrites `rate` whole pages a second, at random within write_mib
//
// The program never ends: a guest stops when its host stops it.

#include <fcntl.h>
#include <stdio.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include "workload.h"

static void mount_all(void) {
  mkdir("/proc", 0755);
  mkdir("/sys", 0755);
  mkdir("/dev", 0755);
  mkdir("/data", 0755);
  if (mount("devtmpfs", "/dev", "devtmpfs", 0, NULL) != 0) fail("mount /dev");
  if (mount("proc", "/proc", "proc", 0, NULL) != 0) fail("mount /proc");
  if (mount("sysfs", "/sys", "sysfs", 0, NULL) != 0) fail("mount /sys");
  if (mount("tmpfs", "/data", "tmpfs", 0, "size=100%,mode=755") != 0) fail("mount /data");
}

static uint64_t serve_once(struct worker* worker) {
  static uint64_t block[kReadBytes / 8];
  uint64_t choice = next_random(&worker->state);
  char path[64];
  snprintf(path, sizeof path, "/data/image/%04ld",
           (long)(choice % (uint64_t)worker->settings->image_mib));
  int fd = open(path, O_RDONLY);
  if (fd < 0) fail(path);
  off_t offset = (off_t)((choice >> 32) % (kFileBytes / kReadBytes)) * kReadBytes;
  if (pread(fd, block, sizeof block, offset) != (ssize_t)sizeof block) fail(path);
  close(fd);
  static volatile uint64_t sum;
  for (size_t i = 0; i < sizeof block / 8; ++i) sum += block[i];
  return 1;
}

int main(void) {
  mount_all();
  open_serial();
  struct settings settings;
  read_settings(&settings);

  struct worker worker = {.settings = &settings, .state = own_seed(&settings)};
  work_fn* work_once = NULL;
  if (!strcmp(settings.role, "web") && settings.image_mib > 0) work_once = serve_once;

  write_files("/data/image", settings.image_mib, seed_of(settings.image));
  write_files("/data/own", settings.own_mib, next_random(&worker.state));
  if (!work_once) work_once = memory_work(&worker);
  say("\nready role=%s image=%s\n", settings.role, settings.image);
  work_for_ever(&worker, work_once);
}
