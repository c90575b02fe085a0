#pragma once

#include <chrono>
#include <filesystem>
#include <map>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include <sys/types.h>

#include "core/bus.h"
#include "core/clock.h"
#include "core/fd.h"
#include "core/hypervisor.h"
#include "core/mutex.h"
#include "core/result.h"
#include "imagestore/image_store.h"
#include "tools/samepaged/disk_record.h"

namespace samepage::agent {

/// The disks of this host's VMs. Each is an overlay in a folder of its own and an nbdkit process
/// that serves it on a UNIX socket, which QEMU opens as an ordinary libvirt network disk.
///
/// Invariant: every disk that is here is served: a process that died is started again, and VMs that
/// were paused for the I/O error meanwhile go on. The processes outlive the agent: the next agent
/// finds them. The versions that disks stand on are held in the catalog, by leases that are
/// renewed.
///
/// Names: as images'. A disk's socket has the same path on every host: `RUN_DIR/NAME.nbd`.
/// Threads: every method may be called from any thread; one thread of its own tends the processes.
/// Errors of all: kNotFound: no such disk. kIo: the local disk refused. Others: the store's.
class Disks {
 public:
  struct Options {
    std::filesystem::path folder = "/var/lib/samepage/disks";
    std::filesystem::path mirrors = "/var/lib/samepage/mirrors";
    std::filesystem::path run_dir = "/run/samepage/disks";
    imagestore::ImageStore::Options store;  ///< Its access does not matter.
    std::string store_socket;               ///< Of the agent's store; empty: the origin alone.
    std::string key_file;                   ///< Of `store.domain`, for the processes.
    std::string nbdkit = "nbdkit";
    std::string plugin;         ///< nbdkit's name of it, or a path.
    std::string host = "host";  ///< Tells holders of versions apart.
    unsigned nbd_threads = 16;  ///< Requests of one VM at the same time.
    std::size_t disks_max = 1'000;
    std::uint64_t mirror_bytes_max = std::uint64_t{20}
                                     << 30U;  ///< Of versions without a disk here.
    std::chrono::seconds lease{12 * 3600};
    std::chrono::milliseconds start_max{20'000};
    std::chrono::milliseconds pause_max{5'000};  ///< Before a process that ends again and again.
  };

  /// Finds the disks that are here and starts what does not run. Borrows hypervisor and clock.
  static Result<std::unique_ptr<Disks>> create(Options options, Hypervisor& hypervisor,
                                               const Clock& clock);

  /// Leaves the processes running.
  ~Disks();
  Disks(const Disks&) = delete;
  Disks& operator=(const Disks&) = delete;

  struct Wanted {
    std::string name;              ///< Of the disk.
    std::string image;             ///< What it stands on.
    std::uint64_t number = 0;      ///< Of the version; 0: the newest.
    std::uint64_t size_bytes = 0;  ///< 0: the version's; it may be larger.
    std::string vm = {};           ///< The VM's name; empty: not known yet.
  };

  /// A new disk, in constant time, served when this returns. kInvalid: the name is taken or not a
  /// name, or the size is below the image's.
  Result<bus::DiskState> create(const Wanted& wanted);

  Result<bus::DiskState> find(const std::string& name);
  bus::DiskReply list();

  /// Ends its process and removes what it holds. kInvalid: its VM is active.
  Result<void> remove(const std::string& name);

  /// Makes what the disk is now a version of `image`; empty: of the image with the disk's name,
  /// which is made as a clone of what the disk stands on. The VM goes on; its file systems are
  /// frozen for the moment when `freeze_guest` and its agent answers, and the reply says so.
  Result<bus::DiskCommitted> commit(const std::string& name, const std::string& image,
                                    bool freeze_guest);

  /// A new disk that is what this one is now: a commit, which costs what was written since the
  /// last, and a disk on top of that version.
  Result<bus::DiskState> clone(const std::string& name, const std::string& new_name,
                               const std::string& vm);

  // Disks that move with their VMs (tools/samepaged/disk_moves.h).

  bool is_empty();

  /// The disks behind these sockets, those of others left out. kInvalid: a socket in this agent's
  /// folder of which it knows no disk.
  Result<std::vector<std::string>> at_sockets(const std::vector<std::string>& sockets);

  /// What the target of a migration must know of a disk.
  Result<bus::DiskOffer> offer(const std::string& name);

  /// Makes the disk that a migration's source offers, whose words may be anybody's, for the VM
  /// `vm`; it moves until set_moving(). kInvalid: the name is taken, or the store has no version
  /// that it could stand on. kUnavailable: there is no room.
  Result<bus::DiskAnswer> receive(const bus::DiskOffer& offer, const VmInfo& vm);

  /// Nothing but the migration touches a disk that moves. kInvalid: it does already.
  Result<void> set_moving(const std::string& name, bool moving);

  /// Durable.
  Result<void> set_phase(const std::string& name, DiskPhase phase, const VmId& vm);

  /// The copy of a VM that a migration left here has ended, for the VM is its source's: so are the
  /// disks that came with it.
  void copy_discarded(const VmId& vm);

  /// The control socket of a disk's process.
  std::string control_of(const std::string& name) const;

  /// Carries out a request of the placer.
  Result<bus::DiskReply> answer(const bus::DiskRequest& request);

  /// The disk as libvirt's domain XML has it, as `target` ("vda") on virtio.
  std::string xml(const std::string& name, const std::string& target) const;

  std::string socket_of(const std::string& name) const;

 private:
  struct Entry;

  Disks(Options options, Hypervisor& hypervisor, const Clock& clock);

  Result<void> adopt();
  std::shared_ptr<Entry> entry(const std::string& name);
  Result<std::shared_ptr<Entry>> expect(const std::string& name);
  std::vector<std::shared_ptr<Entry>> all();
  Result<void> expect_idle(const Entry& entry);
  void settle_moved();
  void settle_moved(const DiskRecord& record, const std::vector<VmInfo>& vms);
  Result<void> make_room_for(const bus::DiskOffer& offer, const VmInfo& vm);
  Result<bool> choose_base(const bus::DiskOffer& offer, DiskRecord& record);
  Result<void> lay_out(Entry& entry, const bus::DiskOffer& offer, bool committed);
  Result<void> start(Entry& entry);
  Result<pid_t> spawn(const Entry& entry);
  Result<Fd> find_process(const Entry& entry) const;
  void wake_tender();
  void stop(Entry& entry);
  void drop(Entry& entry);
  void tend(const std::stop_token& stop);
  void restart(Entry& entry);
  void resume_vm(Entry& entry);
  void renew_leases();
  void prune_mirrors();
  Result<bus::DiskState> state_of(Entry& entry);
  std::string holder_of(const std::string& name) const;

  const Options options_;
  Hypervisor& hypervisor_;
  const Clock& clock_;
  Fd wake_;
  Mutex mutex_;
  std::map<std::string, std::shared_ptr<Entry>> entries_ GUARDED_BY(mutex_);
  std::jthread tender_;
};

}  // namespace samepage::agent
