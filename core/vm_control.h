#pragma once

#include <chrono>
#include <string>

#include "core/hypervisor.h"
#include "core/result.h"

namespace samepage {

/// Makes, freezes and ends the VMs of this host. LibvirtVmControl in programs, a fake in
/// tests/fakes/.
///
/// Every VM that it makes is transient: when it ends, libvirt forgets it.
/// Threads: every method may be called from any thread; each blocks its caller only.
/// Errors: kNotFound: no such VM. kUnavailable: libvirt cannot be reached. kInvalid: libvirt
/// refuses the XML, or a VM of that name or UUID is there already.
class VmControl {
 public:
  virtual ~VmControl() = default;

  /// Starts a VM from its XML.
  virtual Result<VmId> start(const std::string& xml) = 0;

  /// Starts a VM from a save image. It is there paused: its processors have not run.
  virtual Result<void> restore(const std::string& save_image) = 0;

  virtual Result<void> suspend(const VmId& vm) = 0;
  virtual Result<void> resume(const VmId& vm) = 0;

  /// Writes the VM into a save image and ends it. After an error it goes on.
  virtual Result<void> save(const VmId& vm, const std::string& save_image) = 0;

  /// Plugs a device into the running VM, given as its XML element.
  virtual Result<void> attach(const VmId& vm, const std::string& device) = 0;

  /// Whether its processors run. kNotFound: it has ended.
  virtual Result<bool> is_running(const VmId& vm) = 0;

  /// What it has used of the host's processors since it started.
  virtual Result<std::chrono::nanoseconds> cpu_time(const VmId& vm) = 0;

  /// Whether the guest's agent answers.
  virtual Result<bool> agent_answers(const VmId& vm) = 0;

  /// Starts a program in the guest through its agent; does not wait for its end.
  /// kUnavailable also: the guest's agent does not answer.
  virtual Result<void> run_in_guest(const VmId& vm, const std::string& program) = 0;

  /// The XML that the VM was started from, as libvirt completed it.
  virtual Result<std::string> xml(const VmId& vm) = 0;

  /// Pulls the plug. A VM that is not there (any more) is no error.
  virtual Result<void> end(const VmId& vm) = 0;
};

}  // namespace samepage
