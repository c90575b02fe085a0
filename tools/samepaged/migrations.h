#pragma once

#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "core/bus.h"
#include "core/hypervisor.h"
#include "core/mutex.h"
#include "core/sharing_domain.h"
#include "migrator/source_migration.h"
#include "migrator/target_migration.h"
#include "migrator/template_arrival.h"
#include "tools/samepaged/departing_pages.h"
#include "tools/samepaged/disk_moves.h"
#include "tools/samepaged/host_index.h"

namespace samepage::agent {

/// The migrations that this agent takes part in, as source or as target, and for a while what
/// became of those that it was the source of.
///
/// Threads: every method may be called from any thread; each migration runs on one of its own.
/// Lifetime: destroying it cancels what still can stay here, waits `Options::leave_max` for it, and
/// abandons the rest, which the placer settles later.
class Migrations {
 public:
  struct Options {
    std::string socket_dir = "/run/samepage/migrate";
    std::string libvirt_socket = "/run/libvirt/libvirt-sock";
    std::string data_address;  ///< Numeric; where sources connect to.
    std::size_t sessions_max = 16;
    std::size_t outcomes_max = 256;
    std::chrono::milliseconds leave_max{5'000};
    pagecache::CheckpointStore::Options checkpoints;  ///< Of guests that leave.
    pagecache::ImagePages::Options images;

    /// Memory to have ready for the first migration, which the kernel may take back at any time.
    std::size_t warm_bytes = 0;

    /// Called before a VM leaves or arrives: until the result is destroyed, which is when the
    /// session has ended, nothing looks at its memory. Empty: nothing does anyway.
    std::function<std::shared_ptr<void>(const VmId&)> hands_off;

    /// Lays a ticket for a VM that arrives and was forked from a template. Empty: it moves as any.
    std::function<Result<std::unique_ptr<migrator::TemplateArrival>>(const bus::PrepareTarget&)>
        expect_template;

    /// The disks of a VM that leaves, and of one that comes. Empty: none has any.
    std::function<Result<std::unique_ptr<DepartingDisks>>(const VmId&)> disks_of;
    std::function<std::unique_ptr<ComingDisks>(const VmInfo&)> expect_disks;

    /// The placer has found that a VM is another host's, and the copy here was ended.
    std::function<void(const VmId&)> copy_discarded;
  };

  /// Told from the migrations' own threads: progress and, once each, the end.
  struct Notices {
    std::function<void(const bus::MigrationUpdate&)> update;
    std::function<void(const bus::MigrationOutcome&)> outcome;
  };

  Migrations(Options options, Hypervisor& hypervisor, Notices notices);
  ~Migrations();
  Migrations(const Migrations&) = delete;
  Migrations& operator=(const Migrations&) = delete;

  /// Gets ready to receive a VM, in place of an earlier session for it to which no source came.
  /// kInvalid: the request is malformed, or the VM is here or on its way already. kUnavailable: too
  /// many migrations, or no port is free.
  Result<bus::TargetReady> prepare(const bus::PrepareTarget& request, const SharingDomain& domain);

  /// Starts to send a VM away. Errors as prepare().
  Result<void> start(const bus::StartMigration& request, const SharingDomain& domain);

  /// Hashes the pages of this host's disk images, in the background, so that arrivals find them.
  void learn_images(const std::vector<SharingDomain>& domains);

  /// kNotFound: no such outgoing migration.
  Result<void> cancel(const std::string& session);

  /// The outcome of an outgoing migration, `goes_on` while it has none. kNotFound: not known here.
  Result<bus::MigrationOutcome> query(const std::string& session);

  /// The placer's word on a paused copy. kInvalid: the copy is not paused. kNotFound: no such VM.
  Result<void> settle(const VmId& vm, migrator::Verdict verdict);

  /// The sessions that have not ended.
  std::vector<std::string> sessions();

  void on_vm_event(const VmEvent& event);

 private:
  struct Session {
    VmId vm;
    SharingDomain domain;
    std::unique_ptr<DepartingDisks> departing_disks;    // A source's.
    std::unique_ptr<ComingDisks> coming_disks;          // A target's.
    std::unique_ptr<migrator::SourceMigration> source;  // One of the two.
    std::unique_ptr<migrator::TargetMigration> target;
    bus::MigrationOutcome figures;              // A source's, so far.
    std::shared_ptr<DepartingPages> departing;  // A source's that keeps its pages.
    std::shared_ptr<void> untouched;
    std::shared_ptr<const migrator::TemplateArrival> on_template;  // A target's; may be null.
    bool ended = false;
    std::jthread thread;
  };

  Result<void> check_room(const std::string& session, const VmId& vm) REQUIRES(mutex_);
  void drop_ended() REQUIRES(mutex_);
  void end_waiting_arrivals(const VmId& vm);
  std::shared_ptr<const migrator::TemplateArrival> expect_template(
      const bus::PrepareTarget& request) const;
  std::shared_ptr<DepartingPages> take_pages(const SharingDomain& domain);
  void keep_pages(const VmInfo& vm, DepartingPages& departing);
  migrator::SourceOutcome send_away(const std::string& name, Session& session);
  void run_source(const std::string& name, Session& session);
  void run_target(const std::string& name, Session& session);
  void take_progress(const std::string& name, Session& session,
                     const migrator::SourceProgress& progress);
  std::vector<std::shared_ptr<Session>> live();
  bool wait_for_end(Deadline deadline, const std::function<bool(const Session&)>& is_meant);

  const Options options_;
  Hypervisor& hypervisor_;
  const Notices notices_;
  pagecache::CheckpointStore checkpoints_;
  pagecache::ImagePages images_;
  Mutex mutex_;
  bool learns_images_ GUARDED_BY(mutex_) = false;
  std::jthread images_thread_ GUARDED_BY(mutex_);
  std::condition_variable_any ended_;
  std::map<std::string, std::shared_ptr<Session>> sessions_ GUARDED_BY(mutex_);
  std::deque<bus::MigrationOutcome> outcomes_ GUARDED_BY(mutex_);  // Oldest first.
  std::multimap<VmId, std::shared_ptr<DepartingPages>> departed_ GUARDED_BY(mutex_);
  std::jthread warming_up_;
};

}  // namespace samepage::agent
