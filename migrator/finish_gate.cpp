#include "migrator/finish_gate.h"

#include <utility>

namespace samepage::migrator {

using std::chrono::steady_clock;

FinishGate::FinishGate(const Options& options, LeavingDisks& disks,
                       std::function<void(Error)> on_refusal)
    : options_(options), disks_(disks), on_refusal_(std::move(on_refusal)) {}

bool FinishGate::may_finish() {
  auto may = await();
  {
    const MutexLock lock(mutex_);
    has_let_finish_ = may.has_value();
  }
  if (!may) on_refusal_(std::move(may).error());
  return has_let_finish();
}

/// The target's libvirt runs the guest as soon as it is told to finish a post-copy migration.
/// Before the switch the guest may still go on here, so then it must not be told.
Result<void> FinishGate::await() {
  if (!options_.postcopy) return disks_.hand_over();
  const MutexLock lock(mutex_);
  const Deadline deadline = steady_clock::now() + options_.switch_max;
  while (!has_switched_ && steady_clock::now() < deadline) changed_.wait_until(mutex_, deadline);
  if (has_switched_) return {};
  return fail(Errc::kUnavailable,
              "its memory was across before post-copy could begin; migrate it without --postcopy");
}

void FinishGate::saw_switch() {
  const MutexLock lock(mutex_);
  has_switched_ = true;
  changed_.notify_all();
}

bool FinishGate::has_let_finish() const {
  const MutexLock lock(mutex_);
  return has_let_finish_;
}

}  // namespace samepage::migrator
