#pragma once

#include <memory>
#include <string>

#include "core/vm_control.h"

namespace samepage {

class LibvirtConnection;

/// VmControl over libvirt. Connects when it is first needed and again after libvirtd was restarted.
/// Threads and errors: VmControl's.
class LibvirtVmControl final : public VmControl {
 public:
  /// Succeeds without a connection. kIo: libvirt's event loop cannot be started.
  static Result<std::unique_ptr<VmControl>> create(const std::string& uri);
  explicit LibvirtVmControl(std::unique_ptr<LibvirtConnection> connection);
  LibvirtVmControl(const LibvirtVmControl&) = delete;
  LibvirtVmControl& operator=(const LibvirtVmControl&) = delete;
  ~LibvirtVmControl() override;

  Result<VmId> start(const std::string& xml) override;
  Result<void> restore(const std::string& save_image) override;
  Result<void> suspend(const VmId& vm) override;
  Result<void> resume(const VmId& vm) override;
  Result<void> save(const VmId& vm, const std::string& save_image) override;
  Result<void> attach(const VmId& vm, const std::string& device) override;
  Result<bool> is_running(const VmId& vm) override;
  Result<std::chrono::nanoseconds> cpu_time(const VmId& vm) override;
  Result<bool> agent_answers(const VmId& vm) override;
  Result<void> run_in_guest(const VmId& vm, const std::string& program) override;
  Result<std::string> xml(const VmId& vm) override;
  Result<void> end(const VmId& vm) override;

 private:
  const std::unique_ptr<LibvirtConnection> connection_;
};

}  // namespace samepage
