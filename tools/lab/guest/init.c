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
// Lines printed: "ready role=R image=I", then every 50 ms "heartbeat n=COUNT work=COUNT".
// The program never ends: a guest stops when its host stops it.

#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

enum { kPageBytes = 4096, kFileBytes = 1 << 20, kReadBytes = 1 << 16 };
static const int64_t kBeatNs = 50 * 1000000ll;
static const int64_t kTickNs = 10 * 1000000ll;
static const int64_t kSwitchNs = 2 * 1000000ll;
enum { kSwitchers = 2 };

struct settings {
  char role[16];
  char image[32];
  char name[64];
  long image_mib;
  long own_mib;
  long write_mib;
  long rate;
};

static int serial_fd = 2;

static void say(const char* format, ...) {
  char line[256];
  va_list arguments;
  va_start(arguments, format);
  int length = vsnprintf(line, sizeof line, format, arguments);
  va_end(arguments);
  for (int done = 0; done < length;) {
    ssize_t written = write(serial_fd, line + done, length - done);
    if (written > 0) done += written;
    else if (errno != EINTR && errno != EAGAIN) return;
  }
}

// PID 1 must not return: say why on the serial line and wait to be stopped from outside.
static void fail(const char* what) {
  say("failed what=\"%s\" error=\"%s\"\n", what, strerror(errno));
  for (;;) pause();
}

static int64_t now_ns(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return now.tv_sec * 1000000000ll + now.tv_nsec;
}

static void sleep_until(int64_t when_ns) {
  struct timespec when = {when_ns / 1000000000ll, when_ns % 1000000000ll};
  clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &when, NULL);
}

// splitmix64: one addition and three mixes a word, quick enough under emulation.
static uint64_t next_random(uint64_t* state) {
  uint64_t z = (*state += 0x9e3779b97f4a7c15ull);
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
  return z ^ (z >> 31);
}

static uint64_t seed_of(const char* text) {  // FNV-1a
  uint64_t seed = 0xcbf29ce484222325ull;
  for (; *text; ++text) seed = (seed ^ (unsigned char)*text) * 0x100000001b3ull;
  return seed;
}

static void fill_random(unsigned char* page, uint64_t* state) {
  for (int i = 0; i < kPageBytes; i += 8) {
    uint64_t word = next_random(state);
    memcpy(page + i, &word, 8);
  }
}

static void fill_text(unsigned char* page, uint64_t* state) {
  static const char* const words[16] = {
      "error ",  "request ", "the ",   "of ",     "server ", "include ", "return ", "static ",
      "config ", "listen ",  "libc ",  "symbol ", "page ",   "memory ",  "GET ",    "index "};
  enum { kParagraphBytes = 1024 };
  size_t used = snprintf((char*)page, kParagraphBytes, "%016llx ",
                         (unsigned long long)next_random(state));
  while (used < kParagraphBytes) {
    uint64_t choices = next_random(state);
    for (int i = 0; i < 16 && used < kParagraphBytes; ++i, choices >>= 4) {
      const char* word = words[choices & 15];
      size_t length = strlen(word);
      if (length > kParagraphBytes - used) length = kParagraphBytes - used;
      memcpy(page + used, word, length);
      used += length;
    }
  }
  for (int copy = 1; copy < kPageBytes / kParagraphBytes; ++copy)
    memcpy(page + copy * kParagraphBytes, page, kParagraphBytes);
}

// Writes mib files of 1 MiB; what page p holds depends on the seed and p alone.
static void write_files(const char* folder, long mib, uint64_t seed) {
  static unsigned char data[kFileBytes];
  mkdir(folder, 0755);
  for (long file = 0; file < mib; ++file) {
    for (long page = 0; page < kFileBytes / kPageBytes; ++page) {
      uint64_t state = seed ^ (uint64_t)(file * (kFileBytes / kPageBytes) + page + 1) << 20;
      if (page % 2 == 0) fill_random(data + page * kPageBytes, &state);
      else fill_text(data + page * kPageBytes, &state);
    }
    char path[64];
    snprintf(path, sizeof path, "%s/%04ld", folder, file);
    int fd = open(path, O_CREAT | O_WRONLY | O_TRUNC, 0644);
    if (fd < 0 || write(fd, data, sizeof data) != (ssize_t)sizeof data) fail(path);
    close(fd);
  }
}

// A seed that differs between guests and between starts. The kernel's pool may still be poor this
// early under emulation, so the guest's name and the clock go in as well.
static uint64_t own_seed(const struct settings* settings) {
  uint64_t seed = 0;
  if (getrandom(&seed, sizeof seed, GRND_INSECURE) != sizeof seed) seed = 1;
  return seed ^ seed_of(settings->name) ^ (uint64_t)now_ns() << 24;
}

static void read_settings(struct settings* settings) {
  char line[2048];
  int fd = open("/proc/cmdline", O_RDONLY);
  ssize_t length = fd < 0 ? -1 : read(fd, line, sizeof line - 1);
  if (length < 0) fail("/proc/cmdline");
  close(fd);
  line[length] = 0;

  *settings = (struct settings){.role = "idle", .image = "a", .image_mib = 48, .write_mib = 16};
  for (char* word = strtok(line, " \n"); word; word = strtok(NULL, " \n")) {
    if (strncmp(word, "samepage.", 9) != 0) continue;
    char* key = word + 9;
    char* value = strchr(key, '=');
    if (!value) continue;
    *value++ = 0;
    if (!strcmp(key, "role")) snprintf(settings->role, sizeof settings->role, "%s", value);
    else if (!strcmp(key, "image")) snprintf(settings->image, sizeof settings->image, "%s", value);
    else if (!strcmp(key, "name")) snprintf(settings->name, sizeof settings->name, "%s", value);
    else if (!strcmp(key, "image_mib")) settings->image_mib = atol(value);
    else if (!strcmp(key, "own_mib")) settings->own_mib = atol(value);
    else if (!strcmp(key, "write_mib")) settings->write_mib = atol(value);
    else if (!strcmp(key, "rate")) settings->rate = atol(value);
  }
}

static void open_serial(void) {
  int fd = open("/dev/ttyS0", O_RDWR | O_NOCTTY);
  if (fd < 0) fail("/dev/ttyS0");
  struct termios mode;
  if (tcgetattr(fd, &mode) == 0) {
    cfmakeraw(&mode);
    tcsetattr(fd, TCSANOW, &mode);
  }
  serial_fd = fd;
}

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

// What a role does once; the return value goes into `work`, which is printed.
struct worker {
  const struct settings* settings;
  uint64_t state;
  unsigned char* buffer;  // write_mib of memory, for sparse and random
  uint64_t pages;
  uint64_t turn;
};

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

static uint64_t touch_once(struct worker* worker) {
  unsigned char* page = worker->buffer + worker->turn % worker->pages * kPageBytes;
  uint64_t words[2] = {next_random(&worker->state), next_random(&worker->state)};
  memcpy(page + (words[0] >> 32) % (kPageBytes / 16) * 16, words, sizeof words);
  worker->turn++;
  return 1;
}

static uint64_t rewrite_once(struct worker* worker) {
  uint64_t page = next_random(&worker->state) % worker->pages;
  fill_random(worker->buffer + page * kPageBytes, &worker->state);
  return 1;
}

static void make_buffer(struct worker* worker) {
  worker->pages = (uint64_t)worker->settings->write_mib * (kFileBytes / kPageBytes);
  worker->buffer = mmap(NULL, worker->pages * kPageBytes, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (worker->buffer == MAP_FAILED) fail("memory for write_mib");
  for (uint64_t page = 0; page < worker->pages; ++page)
    fill_random(worker->buffer + page * kPageBytes, &worker->state);
}

// Processes that only wake up, in turn, so that the guest changes address spaces all the time as a
// guest with many processes does. QEMU 7.2's TCG relies on it: its dirty log does not notice writes
// through a translation that was cached as dirty before the log was read last, and only a change of
// address spaces drops those translations. Without it, live migration loses writes to the kernel's
// own pages, and the guest crashes after its arrival.
static void start_switchers(void) {
  const int64_t start = now_ns();
  for (int i = 0; i < kSwitchers; ++i) {
    const pid_t child = fork();
    if (child < 0) fail("fork");
    if (child > 0) continue;
    for (int64_t next = start + i * kSwitchNs;; next += kSwitchers * kSwitchNs) {
      if (next < now_ns()) next = now_ns() / (kSwitchers * kSwitchNs) * kSwitchers * kSwitchNs +
                                  (kSwitchers + i) * kSwitchNs;
      sleep_until(next);
    }
  }
}

int main(void) {
  mount_all();
  open_serial();
  struct settings settings;
  read_settings(&settings);

  uint64_t (*work_once)(struct worker*) = NULL;
  struct worker worker = {.settings = &settings, .state = own_seed(&settings)};
  if (!strcmp(settings.role, "web") && settings.image_mib > 0) work_once = serve_once;
  if (!strcmp(settings.role, "sparse")) work_once = touch_once;
  if (!strcmp(settings.role, "random")) work_once = rewrite_once;

  write_files("/data/image", settings.image_mib, seed_of(settings.image));
  write_files("/data/own", settings.own_mib, next_random(&worker.state));
  if (work_once == touch_once || work_once == rewrite_once) make_buffer(&worker);
  start_switchers();
  say("\nready role=%s image=%s\n", settings.role, settings.image);

  uint64_t beats = 0, work = 0;
  const int64_t tick_ns = work_once ? kTickNs : kBeatNs;
  const double per_tick = (double)settings.rate * tick_ns / 1e9;
  double due = 0;
  int64_t next_beat = now_ns(), next_tick = next_beat;
  for (;;) {
    if (now_ns() >= next_beat) {
      say("heartbeat n=%llu work=%llu\n", (unsigned long long)++beats, (unsigned long long)work);
      next_beat += kBeatNs;
      // After a stall, go on from now: a burst of late heartbeats would hide the gap.
      if (next_beat < now_ns()) next_beat = now_ns() + kBeatNs;
    }
    if (work_once)
      for (due += per_tick; due >= 1; due -= 1) {
        work += work_once(&worker);
        if (now_ns() >= next_beat) due = 1;  // slower than asked for: the heartbeat comes first
      }
    next_tick += tick_ns;
    if (next_tick < now_ns()) next_tick = now_ns();
    sleep_until(next_tick);
  }
}
