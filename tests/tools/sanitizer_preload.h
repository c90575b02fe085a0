#pragma once

#include <cstdlib>

namespace samepage {

/// While it lives, a program that is started by this one, and was built without a sanitizer, can
/// load a plugin that was built with this one's.
class SanitizerPreload {
 public:
#ifdef SAMEPAGE_SANITIZER_RUNTIME
  SanitizerPreload() {
    ::setenv("LD_PRELOAD", SAMEPAGE_SANITIZER_RUNTIME, 1);
  }
  ~SanitizerPreload() {
    ::unsetenv("LD_PRELOAD");
  }
#else
  SanitizerPreload() = default;
  ~SanitizerPreload() = default;
#endif
  SanitizerPreload(const SanitizerPreload&) = delete;
  SanitizerPreload& operator=(const SanitizerPreload&) = delete;
};

}  // namespace samepage
