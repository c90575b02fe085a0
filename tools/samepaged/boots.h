#pragma once

#include <atomic>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>

#include "core/bus.h"
#include "core/clock.h"
#include "core/hypervisor.h"
#include "core/mutex.h"
#include "core/task_queue.h"
#include "core/vm_control.h"
#include "migrator/forker.h"
#include "migrator/template_arrival.h"
#include "migrator/template_shelf.h"
#include "tools/samepaged/disks.h"
#include "tools/samepaged/template_store.h"
#include "tools/samepaged/vm_disks.h"

namespace samepage::agent {

/// Boots VMs for the placer: makes templates, gets them from the image store, forks VMs from them.
///
/// Threads: every method may be called from any thread, and blocks its caller until it is done.
/// Lifetime: borrows what it is given; stop() has what waits give up soon.
class Boots {
 public:
  struct Options {
    std::filesystem::path shelf_folder;
    std::uint64_t template_bytes_max = std::uint64_t{4} << 30U;
    TemplateStore::Options store;
  };

  /// Removes what a killed agent was making, now or, when libvirt is away, before the first boot.
  /// kIo: the shelf's folder cannot be used.
  struct Host {
    VmControl& vms;
    Hypervisor& hypervisor;
    Disks& disks;
    const Clock& clock;
  };
  static Result<std::unique_ptr<Boots>> create(const Options& options, const Host& host);

  /// Errors as migrator::Forker::make_template(). kInvalid also: a template of that name is there.
  Result<bus::TemplateInfo> make(const bus::MakeTemplate& request);

  Result<bus::TemplateList> list(const bus::ListTemplates& request);

  /// kNotFound: neither here nor in the store.
  Result<void> remove(const bus::RemoveTemplate& request);

  /// kNotFound: no such template. kCorrupt: what is here, or in the store, is damaged.
  Result<bus::TemplateInfo> fetch(const bus::FetchTemplate& request);

  /// A VM of that name that is here already is the answer; so a boot can be asked for again.
  Result<bus::BootedVm> boot(const bus::BootVm& request);

  /// kNotFound is no error.
  Result<void> end(const bus::EndVm& request);

  /// Lets a VM run that was forked paused; one that runs already is no error. kNotFound.
  Result<void> wake(const bus::WakeVm& request);

  /// Has a VM that comes by migration map the template that it was forked from. Errors as
  /// migrator::TemplateArrival::expect().
  Result<std::unique_ptr<migrator::TemplateArrival>> expect(const bus::PrepareTarget& request);

  void stop();

 private:
  Boots(std::unique_ptr<migrator::TemplateShelf> shelf, const Options& options, const Host& host);

  using Shelved = std::shared_ptr<const migrator::ShelvedTemplate>;
  Result<Shelved> get(const std::string& name, std::uint64_t& fetched_bytes);
  Result<migrator::TemplateState> stored_state(const std::string& name) const;
  Result<migrator::TemplateState> state_of(const std::string& name) const;
  Result<void> clean_up();
  void have_first_run(const VmId& vm, const std::string& xml);
  void try_first_run(const VmId& vm, Deadline deadline);
  Result<migrator::LeaderOrder> leader_order(const bus::MakeTemplate& request);
  Result<bus::BootedVm> look_at(const VmInfo& vm) const;
  Result<std::optional<VmInfo>> find_vm(const std::string& name, const VmId& vm);

  std::unique_ptr<migrator::TemplateShelf> shelf_;
  TemplateStore store_;
  VmDisks disks_;
  VmControl& vms_;
  Hypervisor& hypervisor_;
  const Clock& clock_;
  migrator::Forker forker_;
  Mutex making_;  // One template is made or fetched at a time: each needs much room.
  Mutex cleaning_;
  bool clean_ GUARDED_BY(cleaning_) = false;
  std::atomic<bool> stopping_ = false;
  TaskQueue first_runs_;  // Last, so that nothing of it outlives the rest.
};

}  // namespace samepage::agent
