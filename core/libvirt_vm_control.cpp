#include "core/libvirt_vm_control.h"

#include <array>
#include <cstdlib>
#include <string_view>
#include <utility>

#include <libvirt/libvirt-qemu.h>
#include <libvirt/libvirt.h>
#include <libvirt/virterror.h>

#include "core/libvirt_connection.h"

namespace samepage {
namespace {

void release_text(char* text) {
  std::free(text);
}
using LibvirtText = Handle<char, release_text>;

constexpr int kAgentWaitS = 5;

tl::unexpected<Error> failed_to(std::string_view attempt) {
  return tl::unexpected(libvirt_error().within(attempt));
}

}  // namespace

Result<std::unique_ptr<VmControl>> LibvirtVmControl::create(const std::string& uri) {
  return std::unique_ptr<VmControl>(
      std::make_unique<LibvirtVmControl>(TRY(LibvirtConnection::create(uri))));
}

LibvirtVmControl::LibvirtVmControl(std::unique_ptr<LibvirtConnection> connection)
    : connection_(std::move(connection)) {}

LibvirtVmControl::~LibvirtVmControl() = default;

Result<VmId> LibvirtVmControl::start(const std::string& xml) {
  const auto connect = TRY(connection_->get());
  const LibvirtDomain domain(virDomainCreateXML(connect.get(), xml.c_str(), VIR_DOMAIN_NONE));
  if (!domain) return failed_to("start the VM");
  std::array<char, VIR_UUID_STRING_BUFLEN> uuid{};
  if (virDomainGetUUIDString(domain.get(), uuid.data()) != 0) return failed_to("name the VM");
  return VmId{uuid.data()};
}

Result<void> LibvirtVmControl::restore(const std::string& save_image) {
  const auto connect = TRY(connection_->get());
  if (virDomainRestoreFlags(connect.get(), save_image.c_str(), nullptr, VIR_DOMAIN_SAVE_PAUSED) !=
      0) {
    return failed_to("restore the VM");
  }
  return {};
}

Result<void> LibvirtVmControl::suspend(const VmId& vm) {
  const auto domain = TRY(connection_->find(vm));
  if (virDomainSuspend(domain.get()) != 0) return failed_to("suspend the VM");
  return {};
}

Result<void> LibvirtVmControl::resume(const VmId& vm) {
  const auto domain = TRY(connection_->find(vm));
  if (virDomainResume(domain.get()) != 0) return failed_to("resume the VM");
  return {};
}

Result<void> LibvirtVmControl::save(const VmId& vm, const std::string& save_image) {
  const auto domain = TRY(connection_->find(vm));
  if (virDomainSaveFlags(domain.get(), save_image.c_str(), nullptr, VIR_DOMAIN_SAVE_RUNNING) != 0) {
    return failed_to("save the VM");
  }
  return {};
}

Result<void> LibvirtVmControl::attach(const VmId& vm, const std::string& device) {
  const auto domain = TRY(connection_->find(vm));
  if (virDomainAttachDeviceFlags(domain.get(), device.c_str(), VIR_DOMAIN_AFFECT_LIVE) != 0) {
    return failed_to("plug a device into the VM");
  }
  return {};
}

Result<bool> LibvirtVmControl::is_running(const VmId& vm) {
  const auto domain = TRY(connection_->find(vm));
  int state = VIR_DOMAIN_NOSTATE;
  if (virDomainGetState(domain.get(), &state, nullptr, 0) != 0) {
    return failed_to("ask for the VM's state");
  }
  return state == VIR_DOMAIN_RUNNING || state == VIR_DOMAIN_BLOCKED;
}

Result<std::chrono::nanoseconds> LibvirtVmControl::cpu_time(const VmId& vm) {
  const auto domain = TRY(connection_->find(vm));
  virDomainInfo info{};
  if (virDomainGetInfo(domain.get(), &info) != 0) return failed_to("ask for the VM's work");
  return std::chrono::nanoseconds(info.cpuTime);
}

Result<bool> LibvirtVmControl::agent_answers(const VmId& vm) {
  const auto domain = TRY(connection_->find(vm));
  const LibvirtText name(virDomainGetHostname(domain.get(), VIR_DOMAIN_GET_HOSTNAME_AGENT));
  if (name) return true;
  const virErrorPtr error = virGetLastError();
  if (error != nullptr && error->code == VIR_ERR_AGENT_UNRESPONSIVE) return false;
  return failed_to("ask the guest's agent");
}

Result<void> LibvirtVmControl::run_in_guest(const VmId& vm, const std::string& program) {
  const auto domain = TRY(connection_->find(vm));
  const std::string command =
      R"({"execute": "guest-exec", "arguments": {"path": ")" + program + R"("}})";
  const LibvirtText answer(
      virDomainQemuAgentCommand(domain.get(), command.c_str(), kAgentWaitS, 0));
  if (answer) return {};
  return tl::unexpected(
      Error(Errc::kUnavailable, libvirt_error().message()).within("run " + program));
}

Result<std::string> LibvirtVmControl::xml(const VmId& vm) {
  const auto domain = TRY(connection_->find(vm));
  const LibvirtText xml(virDomainGetXMLDesc(domain.get(), VIR_DOMAIN_XML_MIGRATABLE));
  if (!xml) return failed_to("read the VM's XML");
  return std::string(xml.get());
}

Result<void> LibvirtVmControl::end(const VmId& vm) {
  const auto domain = connection_->find(vm);
  if (!domain && domain.error().code() == Errc::kNotFound) return {};
  if (!domain) return tl::unexpected(domain.error());
  if (virDomainDestroy(domain->get()) == 0) return {};
  const Error error = libvirt_error();
  if (virDomainIsActive(domain->get()) != 1) return {};
  return tl::unexpected(Error(error).within("end the VM"));
}

}  // namespace samepage
