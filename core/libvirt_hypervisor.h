#pragma once

#include <memory>
#include <string>

#include "core/hypervisor.h"

namespace samepage {

class LibvirtConnection;

/// Hypervisor over libvirt. Connects when it is first needed and again after libvirtd was
/// restarted; events missed while there was no connection are not repeated, ask vms() then.
///
/// A VM's sharing domain is the text of an element in its XML's metadata:
///
///     <metadata>
///       <samepage:domain xmlns:samepage="https://samepage.example/vm/1">tenant7</samepage:domain>
///     </metadata>
///
/// Without the element it is `default`; a text that is no name makes it empty, which shares with
/// nobody.
///
/// Threads: Hypervisor's. Starts libvirt's event loop, one thread for the process's rest of life,
/// and one thread of its own. Lifetime: no event is delivered after the destructor.
class LibvirtHypervisor final : public Hypervisor {
 public:
  struct Options {
    std::string uri = "qemu:///system";
    /// Where libvirt keeps NAME.pid of every QEMU it runs.
    std::string pid_folder = "/run/libvirt/qemu";
    /// Looked into for what forbids migrations.
    std::string qemu_conf = "/etc/libvirt/qemu.conf";
  };

  /// Succeeds without a connection. kIo: libvirt's event loop cannot be started.
  static Result<std::unique_ptr<Hypervisor>> create(Options options);
  LibvirtHypervisor(Options options, std::unique_ptr<LibvirtConnection> connection);
  LibvirtHypervisor(const LibvirtHypervisor&) = delete;
  LibvirtHypervisor& operator=(const LibvirtHypervisor&) = delete;
  ~LibvirtHypervisor() override;

  Result<HypervisorFacts> facts() override;
  Result<std::vector<VmInfo>> vms() override;
  Result<void> migrate(const MigrateRequest& request) override;
  Result<void> check_migratable(const VmId& vm) override;
  Result<MigrationProgress> migration_progress(const VmId& vm) override;
  Result<void> set_downtime_max(const VmId& vm, std::chrono::milliseconds downtime_max) override;
  Result<void> cancel_migration(const VmId& vm) override;
  Result<void> start_postcopy(const VmId& vm) override;
  Result<void> resume(const VmId& vm) override;
  Result<bool> resume_after_io_error(const VmId& vm) override;
  Result<void> freeze_filesystems(const VmId& vm) override;
  Result<void> thaw_filesystems(const VmId& vm) override;
  Result<void> discard_paused(const VmId& vm) override;
  Result<void> observe(std::function<void(const VmEvent&)> on_event) override;

 private:
  const Options options_;
  const std::unique_ptr<LibvirtConnection> connection_;
};

}  // namespace samepage
