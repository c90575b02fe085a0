#include "tools/samepaged/reporter.h"

#include <algorithm>
#include <utility>

#include "core/log.h"
#include "fingerprinter/fingerprint.h"
#include "fingerprinter/guest_memory.h"
#include "fingerprinter/page_scanner.h"
#include "tools/samepaged/host_memory.h"
#include "tools/samepaged/host_pressure.h"

namespace samepage::agent {
namespace {

bus::GuestState state(VmState state) {
  switch (state) {
    case VmState::kRunning:
      return bus::GUEST_RUNNING;
    case VmState::kPaused:
      return bus::GUEST_PAUSED;
    case VmState::kOther:
      break;
  }
  return bus::GUEST_OTHER;
}

void describe(const VmInfo& vm, bus::Vm& message) {
  message.set_uuid(vm.id.uuid);
  message.set_name(vm.name);
  message.set_state(state(vm.state));
  message.set_memory_bytes(vm.memory_bytes);
  message.set_vcpus(static_cast<std::uint32_t>(vm.vcpus));
  message.set_cpu_seconds(vm.cpu_seconds);
  message.set_sharing_domain(vm.sharing_domain);
  message.set_network_bytes(vm.network_bytes);
  message.set_disk_bytes(vm.disk_bytes);
}

Result<std::vector<std::byte>> fingerprint(const VmInfo& vm, HashSeed seed) {
  const auto memory = TRY(fingerprinter::open_guest_memory(vm));
  const auto scan = TRY(fingerprinter::scan(*memory, seed));
  return fingerprinter::Fingerprint::of(scan).serialize();
}

}  // namespace

Result<bus::HostReport> Reporter::report(const Domains& domains, Effort effort) {
  const auto started = clock_.now();
  const auto vms = TRY(hypervisor_.vms());
  bus::HostReport report;
  for (const VmInfo& vm : vms) {
    if (effort == Effort::kScan) rescan(vm, domains);
    bus::Vm& message = *report.add_vms();
    describe(vm, message);
    const auto found = scanned_.find(vm.id);
    if (found == scanned_.end()) continue;
    const std::vector<std::byte>& bytes = found->second.fingerprint;
    message.set_fingerprint(bytes.data(), bytes.size());
    const auto age =
        std::chrono::duration_cast<std::chrono::milliseconds>(clock_.now() - found->second.at);
    message.set_fingerprint_age_ms(static_cast<std::uint64_t>(age.count()));
  }
  std::erase_if(scanned_, [&](const auto& entry) {
    return std::none_of(vms.begin(), vms.end(),
                        [&](const VmInfo& vm) { return vm.id == entry.first; });
  });
  if (effort == Effort::kScan) {
    put_host_memory(vms, memory_);
    put_pressure(pressure_folder_, report);
    // Of the moment when libvirt was asked: what the counters stand for.
    const auto uptime =
        std::chrono::duration_cast<std::chrono::milliseconds>(started.time_since_epoch());
    report.set_clock_ms(static_cast<std::uint64_t>(std::max<std::int64_t>(uptime.count(), 1)));
  }
  *report.mutable_memory() = memory_;
  report.set_scan_seconds(std::chrono::duration<double>(clock_.now() - started).count());
  return report;
}

Result<bus::VmList> Reporter::list() {
  bus::VmList list;
  for (const VmInfo& vm : TRY(hypervisor_.vms())) describe(vm, *list.add_vms());
  return list;
}

void Reporter::rescan(const VmInfo& vm, const Domains& domains) {
  const auto domain = domains.find(vm.sharing_domain);
  if (domain == domains.end()) {
    scanned_.erase(vm.id);
    return;
  }
  auto fresh = fingerprint(vm, domain->second.seed);
  if (fresh) {
    scanned_[vm.id] = {.fingerprint = *std::move(fresh), .at = clock_.now()};
  } else {
    log_warning("scan failed vm={} why=\"{}\"", vm.name, fresh.error().message());
  }
}

}  // namespace samepage::agent
