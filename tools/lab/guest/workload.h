// What the programs inside lab guests have in common: the serial line and its heartbeat, the
// settings on the kernel command line, data whose sharing is known, and work to do on it.
//
// Settings are words samepage.<key>=<value>. Lines printed: "ready role=R image=I", then every
// 50 ms "heartbeat n=COUNT work=COUNT"; or "failed what=W error=E", and nothing more.
#pragma once

#define _GNU_SOURCE
#include <stdint.h>
#include <string.h>

enum { kPageBytes = 4096, kFileBytes = 1 << 20, kReadBytes = 1 << 16 };

struct settings {
  char role[16];
  char image[32];
  char name[64];
  long image_mib;
  long own_mib;
  long write_mib;
  long rate;
  long beat_ms;
};

// What a role works with. `buffer` is write_mib of memory, for roles that write.
struct worker {
  const struct settings* settings;
  uint64_t state;
  unsigned char* buffer;
  uint64_t pages;
  uint64_t turn;
};

// One operation of a role; the return value is added to `work`, which the heartbeat shows.
typedef uint64_t work_fn(struct worker*);

void open_serial(void);
void read_settings(struct settings* settings);
void say(const char* format, ...);

// Says why on the serial line and waits to be stopped from outside.
void fail(const char* what) __attribute__((noreturn));

int64_t now_ns(void);
void sleep_until(int64_t when_ns);

uint64_t next_random(uint64_t* state);
uint64_t seed_of(const char* text);

// A seed that differs between guests and between starts of one guest.
uint64_t own_seed(const struct settings* settings);

void fill_random(unsigned char* page, uint64_t* state);

// Writes mib files of 1 MiB; what page p holds depends on the seed and p alone.
void write_files(const char* folder, long mib, uint64_t seed);

// The work of role "sparse" or "random", with its memory made ready; NULL for any other role.
work_fn* memory_work(struct worker* worker);

// Prints the heartbeat and does the work at settings->rate for ever. `work_once` may be NULL.
void work_for_ever(struct worker* worker, work_fn* work_once) __attribute__((noreturn));
