#include "placer/fleet.h"

#include <algorithm>

namespace samepage::placer {

std::string_view to_string(HostState state) {
  switch (state) {
    case HostState::kUp:
      return "up";
    case HostState::kDown:
      return "down";
    case HostState::kNeverSeen:
      return "never_seen";
  }
  return "unknown";
}

std::string_view to_string(VmState state) {
  switch (state) {
    case VmState::kRunning:
      return "running";
    case VmState::kPaused:
      return "paused";
    case VmState::kOther:
      return "other";
  }
  return "unknown";
}

const Host* Fleet::find_host(std::string_view name) const {
  const auto found =
      std::find_if(hosts.begin(), hosts.end(), [&](const Host& host) { return host.name == name; });
  return found == hosts.end() ? nullptr : &*found;
}

const Vm* Fleet::find_vm(const VmId& id) const {
  const auto found =
      std::find_if(vms.begin(), vms.end(), [&](const Vm& vm) { return vm.id == id; });
  return found == vms.end() ? nullptr : &*found;
}

Result<const Vm*> Fleet::named(std::string_view name_or_uuid) const {
  std::vector<const Vm*> matches;
  for (const Vm& vm : vms) {
    if (vm.id.uuid == name_or_uuid) return &vm;
    if (vm.name == name_or_uuid) matches.push_back(&vm);
  }
  const std::string name(name_or_uuid);
  if (matches.empty()) {
    return fail(Errc::kNotFound, "no VM named " + name + "; `samepage vms` lists them");
  }
  if (matches.size() == 1) return matches.front();

  std::string uuids;
  for (const Vm* vm : matches) {
    uuids += (uuids.empty() ? "" : ", ") + vm->id.uuid + " on " + vm->host;
  }
  return fail(Errc::kInvalid,
              "several VMs are named " + name + " (" + uuids + "); give the UUID instead");
}

std::vector<const Vm*> Fleet::vms_on(std::string_view host) const {
  std::vector<const Vm*> residents;
  for (const Vm& vm : vms) {
    if (vm.host == host) residents.push_back(&vm);
  }
  return residents;
}

}  // namespace samepage::placer
