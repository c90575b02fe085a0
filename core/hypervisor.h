#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include <sys/types.h>

#include "core/clock.h"
#include "core/result.h"

namespace samepage {

/// A VM's identity: libvirt's UUID in its canonical text form. Names are for people.
struct VmId {
  std::string uuid;

  friend auto operator<=>(const VmId&, const VmId&) = default;
};

/// A VM whose post-copy migration goes on or broke off is kOther where it was: it cannot run there.
enum class VmState : std::uint8_t { kRunning, kPaused, kOther };

/// One active VM of this host, as libvirt describes it.
struct VmInfo {
  VmId id;
  std::string name;
  VmState state = VmState::kOther;
  std::uint64_t memory_bytes = 0;  ///< Guest RAM as configured.
  int vcpus = 0;
  double cpu_seconds = 0;           ///< Used since it started, all vCPUs.
  std::uint64_t network_bytes = 0;  ///< Since it started, all interfaces, both directions.
  std::uint64_t disk_bytes = 0;     ///< Since it started, all disks, read and written.
  pid_t pid = 0;  ///< Its QEMU process, in the agent's PID namespace; 0 while unknown.
  /// From <samepage:domain> in the XML's metadata; empty: unreadable, share with nobody.
  std::string sharing_domain = "default";
  std::string template_id = {};  ///< That it was forked from, from its metadata; empty: none.
};

struct HypervisorFacts {
  std::string uri;
  std::string hypervisor_version;  ///< "QEMU 7.2.22"
  std::string library_version;     ///< "libvirt 9.0.0"
  std::uint64_t memory_bytes = 0;
  int cpus = 0;
};

/// What libvirt reports of an outgoing migration that runs, or of the one that has ended: on its
/// target, for the VM has left its source.
struct MigrationProgress {
  std::uint64_t bytes_processed = 0;
  std::uint64_t bytes_remaining = 0;
  std::chrono::milliseconds elapsed{0};
  std::chrono::milliseconds downtime{0};  ///< QEMU's figure; zero until the job ended.
};

/// How a guest's memory gets across.
struct MigrateMode {
  /// Connections of QEMU's multifd beside the main one, 0 to kStreamsMax; 0 is one plain stream.
  unsigned streams = 0;

  /// The guest goes on at the target before all its memory is there, which it then pulls. From the
  /// switch on neither host alone has all of it: when the link or a host fails, the guest is lost,
  /// unless an administrator resumes the migration.
  bool postcopy = false;

  /// The VM's migration is given up when it takes longer, and the VM stays where it is; unless it
  /// has switched to post-copy by then. At most kTimeMax; 0: the default, an hour.
  std::chrono::seconds time_max{0};

  static constexpr unsigned kStreamsMax = 8;
  static constexpr std::chrono::seconds kTimeMax{86'400};
  friend bool operator==(const MigrateMode&, const MigrateMode&) = default;
};

struct MigrateRequest {
  VmId vm;
  std::string migrate_socket;  ///< UNIX path for QEMU's stream, the same on both hosts.
  std::string control_socket;  ///< UNIX path that leads to the target's libvirt.
  std::chrono::milliseconds downtime_max{300};
  MigrateMode mode{};
};

/// kPausedForMigration comes for an outgoing migration's switch-over, and only when the guest was
/// running until then. A VM that migrated without it was paused before: leave it paused. kPostcopy
/// says that an outgoing migration switched to post-copy: this host will never run the VM again.
enum class VmEventKind : std::uint8_t {
  kStarted,
  kStopped,
  kPaused,
  kPausedForMigration,
  kPostcopy,
  kResumed
};

struct VmEvent {
  VmId vm;
  VmEventKind kind = VmEventKind::kStarted;
};

/// The VMs of this host. LibvirtHypervisor in programs, a fake in tests/fakes/.
///
/// Threads: every method may be called from any thread; migrate() blocks its caller only.
/// Errors: kNotFound: no such VM. kUnavailable: libvirt cannot be reached; retry is safe.
class Hypervisor {
 public:
  virtual ~Hypervisor() = default;

  virtual Result<HypervisorFacts> facts() = 0;

  /// Every active VM, sorted by name.
  virtual Result<std::vector<VmInfo>> vms() = 0;

  /// Live-migrates to wherever the two sockets lead and returns when the source has let go of the
  /// VM. The VM arrives *paused* on the target: whoever knows that the source will not run it any
  /// more resumes it there (see "Never twice" in docs/design-notes.md). Not so with post-copy:
  /// there the target's libvirt runs it as soon as it is told to finish, so it must not be told
  /// before the switch (kPostcopy). kTimedOut: the connection to libvirt was lost half-way, the
  /// outcome is unknown; ask vms() of both hosts. On any other error the VM is still the source's
  /// and goes on there.
  virtual Result<void> migrate(const MigrateRequest& request) = 0;

  /// Whether migrate() can do anything for this VM at all. kInvalid: it cannot, for a reason that
  /// will stay until somebody mends it; the message says how.
  virtual Result<void> check_migratable(const VmId& vm) = 0;

  virtual Result<MigrationProgress> migration_progress(const VmId& vm) = 0;

  /// Changes what QEMU aims at in a migration that runs. kInvalid: none does.
  virtual Result<void> set_downtime_max(const VmId& vm, std::chrono::milliseconds downtime_max) = 0;

  virtual Result<void> cancel_migration(const VmId& vm) = 0;

  /// Has a running migration that was begun with post-copy switch to it. kInvalid, kIo: not now.
  virtual Result<void> start_postcopy(const VmId& vm) = 0;

  /// One that runs already is left alone.
  virtual Result<void> resume(const VmId& vm) = 0;

  /// Lets a VM that was paused because its disk was away go on. False: it was not.
  virtual Result<bool> resume_after_io_error(const VmId& vm) = 0;

  /// Has the guest's agent write out and freeze its file systems, until thaw_filesystems(). Any
  /// error: nothing is frozen; the VM has no guest agent, or it does not answer.
  virtual Result<void> freeze_filesystems(const VmId& vm) = 0;
  virtual Result<void> thaw_filesystems(const VmId& vm) = 0;

  /// Ends a paused copy that an abandoned migration left here. kInvalid: the VM is not paused.
  virtual Result<void> discard_paused(const VmId& vm) = 0;

  /// Calls `on_event` from a thread of the hypervisor's own for each life-cycle change, until the
  /// hypervisor is destroyed. At most one observer; set it before the first migration. An empty
  /// function ends the observation: when this returns, no call is under way and none follows.
  virtual Result<void> observe(std::function<void(const VmEvent&)> on_event) = 0;
};

}  // namespace samepage
