#pragma once

#include <array>
#include <atomic>
#include <memory>
#include <string>
#include <vector>

#include "core/bus.h"
#include "core/clock.h"
#include "core/hypervisor.h"
#include "core/mutex.h"
#include "core/task_queue.h"
#include "core/vm_control.h"
#include "tools/samepaged/boots.h"
#include "tools/samepaged/disks.h"
#include "tools/samepaged/host_store.h"
#include "tools/samepaged/ksm_driver.h"
#include "tools/samepaged/migrations.h"
#include "tools/samepaged/options.h"
#include "tools/samepaged/reporter.h"
#include "tools/samepaged/request_table.h"

namespace samepage::agent {

/// One host's part of the fleet: answers the placer, reports to it, carries out migrations.
///
/// Threads: the bus's thread only hands work on; `desk_` answers what is quick, `scanner_` looks at
/// guests, `disk_queues_` work on disks, `booters_` boot VMs, and every migration has a thread of
/// its own.
/// Lifetime: `libvirt` and `clock` are borrowed and outlive it.
class Agent {
 public:
  /// libvirt's two faces.
  struct Libvirt {
    Hypervisor& hypervisor;
    VmControl& vms;
  };

  /// kInvalid: keys or addresses are malformed; the message says which.
  static Result<std::unique_ptr<Agent>> create(const Options& options, const Libvirt& libvirt,
                                               const Clock& clock);

  /// Cancels outgoing migrations that still can stay here, and leaves.
  ~Agent();
  Agent(const Agent&) = delete;
  Agent& operator=(const Agent&) = delete;

  /// Serves until `stop_descriptor` becomes readable.
  Result<void> serve(int stop_descriptor);

 private:
  Agent(const Options& options, const Libvirt& libvirt, const Clock& clock);

  void add_report_requests();
  void add_migration_requests();
  void add_boot_requests();
  void add_disk_requests();
  void add_store_requests();
  void make_migrations();
  void make_boots();
  imagestore::ImageStore::Options image_store() const;
  std::string store_socket() const;
  Result<void> make_disks();
  Result<void> make_store();
  Result<Boots*> boots();
  Result<void> observe_guests();
  Result<void> open_bus();

  void greet_soon();
  Result<void> say_hello();
  void take_welcome(const bus::Welcome& welcome);
  void dispatch(BusIncoming incoming);
  TaskQueue& queue_for(const bus::Envelope& request);
  Result<bus::Envelope> answer_report(Reporter::Effort effort);
  Result<bus::Envelope> answer_settle(const bus::SettleVm& request);
  void report_soon(Reporter::Effort effort);
  Result<SharingDomain> domain(const std::string& name);
  void notify(bus::Envelope envelope);

  const Options options_;
  Hypervisor& hypervisor_;
  VmControl& vms_;
  const Clock& clock_;

  RequestTable requests_;
  Mutex mutex_;
  Domains domains_ GUARDED_BY(mutex_);
  std::chrono::milliseconds report_interval_ GUARDED_BY(mutex_){60'000};

  Reporter reporter_;               // The scanner's alone, but for list().
  std::unique_ptr<KsmDriver> ksm_;  // The scanner's alone; empty unless KSM is managed.
  std::array<std::atomic<bool>, 3>
      report_posted_{};  // By effort: one waits, others would repeat it.
  std::unique_ptr<BusClient> bus_;
  std::unique_ptr<Migrations> migrations_;
  std::unique_ptr<HostStore> store_;
  std::unique_ptr<Disks> disks_;
  std::unique_ptr<TaskQueue> desk_;
  std::unique_ptr<TaskQueue> scanner_;
  std::array<std::unique_ptr<TaskQueue>, 4> disk_queues_;
  std::unique_ptr<Boots> boots_;  // Null: this host cannot; why_no_boots_ says why.
  std::string why_no_boots_;
  std::vector<std::unique_ptr<TaskQueue>> booters_;
  std::atomic<std::size_t> next_booter_ = 0;
};

}  // namespace samepage::agent
