#pragma once

#include <memory>
#include <string>
#include <vector>

#include "core/hypervisor.h"
#include "core/mutex.h"
#include "core/vm_control.h"
#include "migrator/moving_disk.h"
#include "migrator/source_state.h"
#include "migrator/target_state.h"
#include "tools/samepaged/disks.h"

namespace samepage::agent {

/// The disks that go with a VM, at the source of one migration (docs/design-notes.md, "A disk moves
/// with its VM"): they serve their guest on, are kept from everybody else, and are removed when the
/// guest surely runs on the target.
///
/// Threads: one at a time. Lifetime: borrows the disks; outlives what leave() gave out.
class DepartingDisks final {
 public:
  /// Of the VM as libvirt describes it. Errors: Disks::at_sockets()'s and libvirt's.
  static Result<std::unique_ptr<DepartingDisks>> of_vm(const VmId& vm, VmControl& vms,
                                                       Disks& disks);
  ~DepartingDisks();
  DepartingDisks(const DepartingDisks&) = delete;
  DepartingDisks& operator=(const DepartingDisks&) = delete;

  /// For the session. Once. kInvalid: one moves already.
  Result<migrator::LeavingDiskList> leave();

  /// How the session ended; without this, nobody knows.
  void ended(migrator::Side runs_on);

 private:
  DepartingDisks(VmId vm, Disks& disks) : vm_(std::move(vm)), disks_(disks) {}

  const VmId vm_;
  Disks& disks_;
  std::vector<std::string> found_;
  std::vector<std::string> names_;  ///< That move.
};

/// The disks that come with a VM, at the target of one migration.
///
/// Threads: expect() from any, ended() when the session has ended. Lifetime: borrows the disks;
/// outlives what expect() makes.
class ComingDisks final {
 public:
  ComingDisks(VmInfo vm, Disks& disks) : vm_(std::move(vm)), disks_(disks) {}
  ~ComingDisks();
  ComingDisks(const ComingDisks&) = delete;
  ComingDisks& operator=(const ComingDisks&) = delete;

  /// migrator::ExpectDisk.
  Result<std::unique_ptr<migrator::ArrivingDisk>> expect(std::span<const std::byte> offer);

  /// What the session left here; without this, nobody knows.
  void ended(migrator::Copy copy);

 private:
  const VmInfo vm_;
  Disks& disks_;
  Mutex mutex_;
  std::vector<std::string> names_ GUARDED_BY(mutex_);  ///< That move.
};

}  // namespace samepage::agent
