#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "core/hypervisor.h"
#include "migrator/moving_disk.h"
#include "migrator/relay_half.h"
#include "migrator/session_secret.h"
#include "migrator/socket_listener.h"
#include "migrator/target_state.h"

namespace samepage::migrator {

struct TargetOptions {
  std::string session;  ///< 1 to 64 letters and digits; names the sockets and the TLS identity.
  SessionSecret secret;
  VmId vm;
  std::string listen_address;  ///< Numeric; what the source connects to.
  PortRange ports;
  std::string socket_dir = "/run/samepage/migrate";  ///< The same on both hosts.
  std::string libvirt_socket = "/run/libvirt/libvirt-sock";
  std::chrono::milliseconds source_max{60'000};    ///< For the source to come at all.
  std::chrono::milliseconds handshake_max{5'000};  ///< For one connection to become a channel.
  std::chrono::milliseconds qemu_max{30'000};      ///< For QEMU to listen when the stream has come.
  std::chrono::milliseconds total_max{3'660'000};  ///< More than the source's.
  std::chrono::milliseconds deliver_max{10'000};   ///< From RELEASE to the stream's last byte.
  std::chrono::milliseconds resume_max{20'000};    ///< For libvirt to resume or discard.
  ExpectDisk expect_disk{};  ///< For the disks that the VM takes along; empty: none can come.
};

struct TargetOutcome {
  Copy copy = Copy::kInDoubt;  ///< What is on this host now.
  std::optional<Error> error;  ///< Why the guest does not run here.
  RelayCounters relay;
  std::uint64_t wire_bytes = 0;
};

/// The target agent's part of one migration: forwards the control connection to libvirt and the
/// stream to QEMU, and resumes the guest that libvirt leaves paused, when the source says so.
///
/// Invariant: resumes the guest only on the source's RELEASE or the placer's word, and discards it
/// only on the source's ABORTED or the placer's word. Whatever else happens, a copy that libvirt
/// keeps stays paused (see "Never twice" in docs/design-notes.md). Nor does it resume a guest of
/// which a disk has not arrived, whatever the source says.
///
/// Threads: run() blocks its caller; the other methods may be called from any thread, before and
/// after run(), too. Lifetime: `hypervisor` and what `make_relay` uses outlive it.
class TargetMigration final {
 public:
  /// Listens when it returns. `make_relay` is called from a thread of the migration's own.
  /// kInvalid: an option is out of its range, or the VM is on this host already. kUnavailable: no
  /// port is free, or libvirt cannot be asked.
  static Result<std::unique_ptr<TargetMigration>> create(TargetOptions options,
                                                         Hypervisor& hypervisor,
                                                         MakeRelay make_relay);

  /// Where the source connects to.
  std::uint16_t port() const;

  /// Serves the session to its end and removes what it made. Once only.
  TargetOutcome run();

  /// The placer's word on the copy here. Counts until the session has ended; afterwards the
  /// hypervisor is to be told directly.
  void settle(Verdict verdict);

  /// Ends the session if its source has not come: the placer has made another one for the VM.
  void supersede();

  /// Closes every connection at once without a word, as if this agent had died. A copy that libvirt
  /// keeps stays paused.
  void abandon();

  ~TargetMigration();
  TargetMigration(const TargetMigration&) = delete;
  TargetMigration& operator=(const TargetMigration&) = delete;

 private:
  class Impl;
  explicit TargetMigration(std::unique_ptr<Impl> impl);
  const std::unique_ptr<Impl> impl_;
};

}  // namespace samepage::migrator
