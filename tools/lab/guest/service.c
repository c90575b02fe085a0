// The program that a Debian disk guest runs as a service: the heartbeat of the small guest, and
// work for the guest's real servers. See workload.h for what it prints and how it is told.
//
//   own_mib   as in the small guest
//   role      idle, sparse, random: as in the small guest
//             web    `rate` times a second asks nginx for 64 KiB of a random file of its site
//             redis  `rate` times a second sets one of 8192 keys to 1 KiB of text
//
// It says "ready" once nginx and redis have answered it.
//
//   service                        runs in the guest, for ever
//   service FOLDER MIB SEED-TEXT   fills a folder as nginx's site, when the image is built

#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "workload.h"

enum { kNginxPort = 80, kRedisPort = 6379, kRedisKeys = 8192, kValueBytes = 1024 };
static const int64_t kRetryNs = 100 * 1000000ll;

// Sends a request to a local server and reads its answer until `complete` or the end; what was
// read is in `answer`, NUL-terminated. The bytes read, or -1.
static long ask(int port, const char* request, char* answer, size_t size, size_t complete) {
  int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (fd < 0) return -1;
  struct sockaddr_in server = {.sin_family = AF_INET,
                               .sin_port = htons((uint16_t)port),
                               .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  struct timeval limit = {.tv_sec = 30};
  setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
  size_t length = strlen(request), had = 0;
  ssize_t part = -1;
  if (connect(fd, (struct sockaddr*)&server, sizeof server) == 0 &&
      write(fd, request, length) == (ssize_t)length) {
    while (had < complete && (part = read(fd, answer + had, size - 1 - had)) > 0)
      had += (size_t)part;
  }
  close(fd);
  answer[had] = 0;
  return part < 0 ? -1 : (long)had;
}

static void wait_for(int port, const char* request, const char* expected) {
  char answer[4096];
  for (;;) {
    if (ask(port, request, answer, sizeof answer, strlen(expected)) > 0 &&
        strncmp(answer, expected, strlen(expected)) == 0)
      return;
    sleep_until(now_ns() + kRetryNs);
  }
}

static uint64_t get_once(struct worker* worker) {
  static char answer[kReadBytes + 4096];
  char request[128];
  uint64_t choice = next_random(&worker->state);
  unsigned first = (unsigned)(choice >> 32) % (kFileBytes / kReadBytes) * kReadBytes;
  snprintf(request, sizeof request,
           "GET /data/%04u HTTP/1.0\r\nHost: localhost\r\nRange: bytes=%u-%u\r\n\r\n",
           (unsigned)(choice % worker->pages), first, first + kReadBytes - 1);
  return ask(kNginxPort, request, answer, sizeof answer, sizeof answer - 1) > kReadBytes;
}

static uint64_t set_once(struct worker* worker) {
  char request[kValueBytes + 128], answer[64];
  uint64_t choice = next_random(&worker->state);
  char value[kValueBytes + 1];
  for (int i = 0; i < kValueBytes; i += 16)
    snprintf(value + i, 17, "%016llx", (unsigned long long)next_random(&worker->state));
  snprintf(request, sizeof request, "*3\r\n$3\r\nSET\r\n$8\r\nkey:%04u\r\n$%d\r\n%s\r\n",
           (unsigned)(choice % kRedisKeys), kValueBytes, value);
  return ask(kRedisPort, request, answer, sizeof answer, 5) == 5;
}

static unsigned site_files(void) {
  char path[64];
  struct stat found;
  for (unsigned files = 0;; ++files) {
    snprintf(path, sizeof path, "/var/www/html/data/%04u", files);
    if (stat(path, &found) != 0) return files;
  }
}

static work_fn* server_work(struct worker* worker) {
  if (!strcmp(worker->settings->role, "redis")) return set_once;
  if (strcmp(worker->settings->role, "web") != 0) return NULL;
  worker->pages = site_files();
  if (worker->pages == 0) fail("nginx's site is empty");
  return get_once;
}

static void serve(void) {
  open_serial();
  struct settings settings;
  read_settings(&settings);
  struct worker worker = {.settings = &settings, .state = own_seed(&settings)};
  if (settings.own_mib > 0) {
    mkdir("/run/samepage", 0755);
    if (mount("tmpfs", "/run/samepage", "tmpfs", 0, "size=100%") != 0) fail("mount");
    write_files("/run/samepage/own", settings.own_mib, next_random(&worker.state));
  }
  work_fn* work_once = memory_work(&worker);
  if (!work_once) work_once = server_work(&worker);
  wait_for(kNginxPort, "GET / HTTP/1.0\r\n\r\n", "HTTP/1.1 200");
  wait_for(kRedisPort, "PING\r\n", "+PONG");
  say("\nready role=%s image=%s\n", settings.role, settings.image);
  work_for_ever(&worker, work_once);
}

int main(int count, char** words) {
  if (count == 1) serve();
  if (count != 4) {
    fprintf(stderr, "usage: service [FOLDER MIB SEED-TEXT]\n");
    return 2;
  }
  write_files(words[1], atol(words[2]), seed_of(words[3]));
  return 0;
}
