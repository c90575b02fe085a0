#pragma once

#include <csignal>

namespace samepage::cli {

/// Counts Ctrl-C (SIGINT) instead of dying of it, as long as it lives. At most one at a time;
/// lives on the main thread.
class Interrupts {
 public:
  Interrupts();
  Interrupts(const Interrupts&) = delete;
  Interrupts& operator=(const Interrupts&) = delete;
  ~Interrupts();

  int count() const;

 private:
  struct sigaction before_ {};
};

}  // namespace samepage::cli
