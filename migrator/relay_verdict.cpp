#include "migrator/relay_verdict.h"

#include <utility>

#include "core/check.h"

namespace samepage::migrator {

void RelayVerdict::end(Result<void> verdict) {
  {
    const MutexLock lock(mutex_);
    if (verdict_) return;
    verdict_ = std::move(verdict);
    ended_ = true;
  }
  ends_.qemu.shut_down();
  ends_.peer.shut_down();
}

Result<void> RelayVerdict::result() {
  const MutexLock lock(mutex_);
  CHECK(verdict_.has_value());
  return *verdict_;
}

}  // namespace samepage::migrator
