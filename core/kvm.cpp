#include "core/kvm.h"

#include <unistd.h>

namespace samepage {

bool has_kvm() {
  return ::access("/dev/kvm", R_OK | W_OK) == 0;
}

}  // namespace samepage
