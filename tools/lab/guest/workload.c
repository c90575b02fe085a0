#include "workload.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

static const int64_t kTickNs = 10 * 1000000ll;

static int serial_fd = 2;

void say(const char* format, ...) {
  char line[256];
  va_list arguments;
  va_start(arguments, format);
  int length = vsnprintf(line, sizeof line, format, arguments);
  va_end(arguments);
  for (int done = 0; done < length;) {
    ssize_t written = write(serial_fd, line + done, length - done);
    if (written > 0)
      done += written;
    else if (errno != EINTR && errno != EAGAIN)
      return;
  }
}

void fail(const char* what) {
  say("failed what=\"%s\" error=\"%s\"\n", what, strerror(errno));
  for (;;) pause();
}

int64_t now_ns(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return now.tv_sec * 1000000000ll + now.tv_nsec;
}

void sleep_until(int64_t when_ns) {
  struct timespec when = {when_ns / 1000000000ll, when_ns % 1000000000ll};
  clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &when, NULL);
}

// splitmix64: one addition and three mixes a word, quick enough under emulation.
uint64_t next_random(uint64_t* state) {
  uint64_t z = (*state += 0x9e3779b97f4a7c15ull);
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
  return z ^ (z >> 31);
}

uint64_t seed_of(const char* text) {  // FNV-1a
  uint64_t seed = 0xcbf29ce484222325ull;
  for (; *text; ++text) seed = (seed ^ (unsigned char)*text) * 0x100000001b3ull;
  return seed;
}

void fill_random(unsigned char* page, uint64_t* state) {
  for (int i = 0; i < kPageBytes; i += 8) {
    uint64_t word = next_random(state);
    memcpy(page + i, &word, 8);
  }
}

static void fill_text(unsigned char* page, uint64_t* state) {
  static const char* const words[16] = {
      "error ",  "request ", "the ",  "of ",     "server ", "include ", "return ", "static ",
      "config ", "listen ",  "libc ", "symbol ", "page ",   "memory ",  "GET ",    "index "};
  enum { kParagraphBytes = 1024 };
  size_t used =
      snprintf((char*)page, kParagraphBytes, "%016llx ", (unsigned long long)next_random(state));
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

void write_files(const char* folder, long mib, uint64_t seed) {
  static unsigned char data[kFileBytes];
  mkdir(folder, 0755);
  for (long file = 0; file < mib; ++file) {
    for (long page = 0; page < kFileBytes / kPageBytes; ++page) {
      uint64_t state = seed ^ (uint64_t)(file * (kFileBytes / kPageBytes) + page + 1) << 20;
      if (page % 2 == 0)
        fill_random(data + page * kPageBytes, &state);
      else
        fill_text(data + page * kPageBytes, &state);
    }
    char path[512];
    snprintf(path, sizeof path, "%s/%04ld", folder, file);
    int fd = open(path, O_CREAT | O_WRONLY | O_TRUNC, 0644);
    if (fd < 0 || write(fd, data, sizeof data) != (ssize_t)sizeof data) fail(path);
    close(fd);
  }
}

// The kernel's pool may still be poor this early under emulation, so the guest's name and the clock
// go in as well.
uint64_t own_seed(const struct settings* settings) {
  uint64_t seed = 0;
  if (getrandom(&seed, sizeof seed, GRND_INSECURE) != sizeof seed) seed = 1;
  return seed ^ seed_of(settings->name) ^ (uint64_t)now_ns() << 24;
}

void read_settings(struct settings* settings) {
  char line[2048];
  int fd = open("/proc/cmdline", O_RDONLY);
  ssize_t length = fd < 0 ? -1 : read(fd, line, sizeof line - 1);
  if (length < 0) fail("/proc/cmdline");
  close(fd);
  line[length] = 0;

  *settings = (struct settings){.role = "idle", .image = "a", .image_mib = 48, .write_mib = 16,
                                .beat_ms = 50};
  for (char* word = strtok(line, " \n"); word; word = strtok(NULL, " \n")) {
    if (strncmp(word, "samepage.", 9) != 0) continue;
    char* key = word + 9;
    char* value = strchr(key, '=');
    if (!value) continue;
    *value++ = 0;
    if (!strcmp(key, "role"))
      snprintf(settings->role, sizeof settings->role, "%s", value);
    else if (!strcmp(key, "image"))
      snprintf(settings->image, sizeof settings->image, "%s", value);
    else if (!strcmp(key, "name"))
      snprintf(settings->name, sizeof settings->name, "%s", value);
    else if (!strcmp(key, "image_mib"))
      settings->image_mib = atol(value);
    else if (!strcmp(key, "own_mib"))
      settings->own_mib = atol(value);
    else if (!strcmp(key, "write_mib"))
      settings->write_mib = atol(value);
    else if (!strcmp(key, "rate"))
      settings->rate = atol(value);
    else if (!strcmp(key, "beat_ms"))
      settings->beat_ms = atol(value);
  }
}

void open_serial(void) {
  int fd = open("/dev/ttyS0", O_RDWR | O_NOCTTY);
  if (fd < 0) fail("/dev/ttyS0");
  struct termios mode;
  if (tcgetattr(fd, &mode) == 0) {
    cfmakeraw(&mode);
    tcsetattr(fd, TCSANOW, &mode);
  }
  serial_fd = fd;
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

work_fn* memory_work(struct worker* worker) {
  work_fn* work_once = NULL;
  if (!strcmp(worker->settings->role, "sparse")) work_once = touch_once;
  if (!strcmp(worker->settings->role, "random")) work_once = rewrite_once;
  if (work_once) make_buffer(worker);
  return work_once;
}

void work_for_ever(struct worker* worker, work_fn* work_once) {
  uint64_t beats = 0, work = 0;
  const int64_t beat_ns = worker->settings->beat_ms * 1000000ll;
  const int64_t tick_ns = work_once ? kTickNs : beat_ns;
  const double per_tick = (double)worker->settings->rate * tick_ns / 1e9;
  double due = 0;
  int64_t next_beat = now_ns(), next_tick = next_beat;
  for (;;) {
    if (now_ns() >= next_beat) {
      say("heartbeat n=%llu work=%llu\n", (unsigned long long)++beats, (unsigned long long)work);
      next_beat += beat_ns;
      // After a stall, go on from now: a burst of late heartbeats would hide the gap.
      if (next_beat < now_ns()) next_beat = now_ns() + beat_ns;
    }
    if (work_once)
      for (due += per_tick; due >= 1; due -= 1) {
        work += work_once(worker);
        if (now_ns() >= next_beat) due = 1;  // slower than asked for: the heartbeat comes first
      }
    next_tick += tick_ns;
    if (next_tick < now_ns()) next_tick = now_ns();
    sleep_until(next_tick);
  }
}
