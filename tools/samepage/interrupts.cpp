#include "tools/samepage/interrupts.h"

#include <atomic>

namespace samepage::cli {
namespace {

std::atomic<int> interrupts = 0;
static_assert(std::atomic<int>::is_always_lock_free);  // Else no signal handler may touch it.

void count_interrupt(int /*signal*/) {
  ++interrupts;
}

}  // namespace

Interrupts::Interrupts() {
  interrupts = 0;
  struct sigaction counting {};
  counting.sa_handler = &count_interrupt;  // No SA_RESTART: waits end early.
  sigemptyset(&counting.sa_mask);
  sigaction(SIGINT, &counting, &before_);
}

Interrupts::~Interrupts() {
  sigaction(SIGINT, &before_, nullptr);
}

// NOLINTNEXTLINE(readability-convert-member-functions-to-static): only a living object counts.
int Interrupts::count() const {
  return interrupts;
}

}  // namespace samepage::cli
