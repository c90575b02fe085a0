#pragma once

#include <chrono>
#include <condition_variable>
#include <functional>

#include "core/mutex.h"
#include "core/result.h"
#include "migrator/leaving_disks.h"

namespace samepage::migrator {

/// Decides, at the source, when the target's libvirt may be told to finish a migration: from then
/// on nobody takes the guest back. With post-copy that is when QEMU has switched, because the
/// target's libvirt runs the guest at once and the source's might, too; for a VM with disks that it
/// takes along, when the target has all of them. By then the source's QEMU has sent everything, has
/// flushed its disks and let go of them.
///
/// Threads: every method may be called from any thread. Lifetime: borrows the disks.
class FinishGate final {
 public:
  struct Options {
    bool postcopy = false;
    std::chrono::milliseconds switch_max{5'000};  ///< For the news of the switch.
  };

  /// `on_refusal` is told why, from may_finish()'s thread.
  FinishGate(const Options& options, LeavingDisks& disks, std::function<void(Error)> on_refusal);

  /// May answer other than yes.
  bool is_needed() const { return options_.postcopy || !disks_.empty(); }

  /// Waits for the answer.
  bool may_finish();

  void saw_switch();

  /// It has answered yes.
  bool has_let_finish() const;

 private:
  Result<void> await();

  const Options options_;
  LeavingDisks& disks_;
  const std::function<void(Error)> on_refusal_;
  mutable Mutex mutex_;
  std::condition_variable_any changed_;
  bool has_switched_ GUARDED_BY(mutex_) = false;
  bool has_let_finish_ GUARDED_BY(mutex_) = false;
};

}  // namespace samepage::migrator
