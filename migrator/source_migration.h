#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "core/hypervisor.h"
#include "migrator/leaving_disks.h"
#include "migrator/relay_half.h"
#include "migrator/session_secret.h"
#include "migrator/source_state.h"

namespace samepage::migrator {

struct SourceOptions {
  std::string session;  ///< 1 to 64 letters and digits; names the sockets and the TLS identity.
  SessionSecret secret;
  VmId vm;
  std::string target_address;  ///< Numeric.
  std::uint16_t target_port = 0;
  std::string socket_dir = "/run/samepage/migrate";  ///< The same on both hosts.
  std::chrono::milliseconds downtime_max{300};       ///< What QEMU aims at behind its first pass.
  std::chrono::milliseconds connect_max{10'000};     ///< For one connection, TLS included.
  std::chrono::milliseconds total_max{3'600'000};    ///< Then the migration is cancelled.
  std::chrono::milliseconds stop_max{10'000};  ///< libvirt may take so long to cancel; then we cut.
  std::chrono::milliseconds answer_max{30'000};  ///< For the target to run or to discard.
  std::chrono::milliseconds report_every{250};
  MigrateMode mode{};
  std::chrono::milliseconds switch_look{20};  ///< Between two looks whether to switch to post-copy.
  std::chrono::milliseconds switch_max{5'000};  ///< For the news of the switch, once it must come.
  LeavingDisks::Options disks{};
};

struct SourceProgress {
  SourcePhase phase = SourcePhase::kConnecting;
  RelayCounters relay;
  std::uint64_t wire_bytes = 0;
  std::uint64_t disk_bytes = 0;       ///< Of the disks that go along, before compression.
  std::uint64_t bytes_remaining = 0;  ///< QEMU's estimate of guest memory still to send.
};

struct SourceOutcome {
  Side runs_on = Side::kUnknown;
  std::optional<Error> error;  ///< Set unless the VM runs on the target.
  RelayCounters relay;
  std::uint64_t wire_bytes = 0;  ///< On the session's sockets, both directions, TLS included.
  std::uint64_t disk_bytes = 0;  ///< Of the disks that went along, before compression.
  /// From the guest's stop here to the news that it runs there; zero when it did not stop, and with
  /// post-copy, where that is not known here.
  std::chrono::microseconds downtime{0};
  std::chrono::microseconds total{0};
};

/// The source agent's part of one migration: carries libvirt's control connection and QEMU's stream
/// to the target's agent, lets libvirt migrate, and says when the target may run the guest.
///
/// Invariant: tells the target to run the guest only when the source's libvirt will not run it any
/// more, and to discard its copy only while the source's still will (see "Never twice" in
/// docs/design-notes.md). When neither is certain it says nothing, and the placer settles it.
///
/// Threads: run() blocks its caller; the other methods may be called from any thread, before and
/// after run(), too. Lifetime: `hypervisor` and what the callbacks use outlive it.
class SourceMigration final {
 public:
  /// `make_relay` is called from a thread of the migration's own. `disks` go along: the target has
  /// all that was written to them before it can get the guest; with post-copy they are refused.
  /// kInvalid: an option is out of its range.
  static Result<std::unique_ptr<SourceMigration>> create(SourceOptions options,
                                                         Hypervisor& hypervisor,
                                                         MakeRelay make_relay,
                                                         LeavingDiskList disks = {});

  /// Runs the migration to its end and removes what it made. Once only. `on_progress` is called a
  /// few times a second from another thread.
  SourceOutcome run(const std::function<void(const SourceProgress&)>& on_progress);

  /// Ends the migration while the guest still can stay here; too late, it does nothing.
  void cancel();

  /// Closes every connection at once without a word, as if this agent had died: for an agent that
  /// must leave now. The outcome is unknown.
  void abandon();

  /// What the hypervisor observed; events of other VMs are ignored.
  void on_vm_event(const VmEvent& event);

  ~SourceMigration();
  SourceMigration(const SourceMigration&) = delete;
  SourceMigration& operator=(const SourceMigration&) = delete;

 private:
  class Impl;
  explicit SourceMigration(std::unique_ptr<Impl> impl);
  const std::unique_ptr<Impl> impl_;
};

}  // namespace samepage::migrator
