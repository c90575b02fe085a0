#include "tools/samepaged/reporter.h"

#include <algorithm>
#include <chrono>
#include <vector>

#include "fingerprinter/overlap.h"
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
  message.set_template_id(vm.template_id);
}

}  // namespace

Result<bus::HostReport> Reporter::report(const Domains& domains, Effort effort) {
  const auto started = clock_.now();
  const auto vms = TRY(hypervisor_.vms());
  bus::HostReport report;
  if (send_whole_.exchange(false)) told_.clear();
  std::erase_if(told_, [&](const auto& entry) {
    return std::none_of(vms.begin(), vms.end(),
                        [&](const VmInfo& vm) { return vm.id == entry.first; });
  });
  if (effort != Effort::kAtOnce) {
    watches_.rescan(vms, domains);
    memory_.renew(vms, effort == Effort::kScan);
    put_pressure(options_.pressure_folder, report);
    // Of the moment when libvirt was asked: what the counters stand for.
    const auto uptime =
        std::chrono::duration_cast<std::chrono::milliseconds>(started.time_since_epoch());
    report.set_clock_ms(static_cast<std::uint64_t>(std::max<std::int64_t>(uptime.count(), 1)));
  }
  for (const VmInfo& vm : vms) {
    bus::Vm& message = *report.add_vms();
    describe(vm, message);
    if (const auto known = watches_.known(vm.id)) put_fingerprint(vm.id, *known, message);
  }
  memory_.put(report);
  if (effort != Effort::kAtOnce) note_news(vms, report.memory());
  report.set_scan_seconds(std::chrono::duration<double>(clock_.now() - started).count());
  return report;
}

void Reporter::note_news(std::span<const VmInfo> vms, const bus::HostMemory& memory) {
  std::map<std::string, std::vector<fingerprinter::Fingerprint>> by_domain;
  news_ = {};
  for (const VmInfo& vm : vms) {
    const auto known = watches_.known(vm.id);
    if (!known || !known->is_mergeable) continue;
    news_.mergeable_pages += known->fingerprint.counts().present();
    by_domain[vm.sharing_domain].push_back(known->fingerprint);
  }
  for (const auto& [domain, fingerprints] : by_domain) {
    const double expected = fingerprinter::sharing(fingerprints).total().pages;
    news_.expected_pages += static_cast<std::uint64_t>(expected);
  }
  news_.achieved_pages = memory.ksm_mapped_pages() - memory.ksm_frames();
}

void Reporter::put_fingerprint(const VmId& vm, const GuestWatches::Known& known, bus::Vm& message) {
  const auto age = std::chrono::duration_cast<std::chrono::milliseconds>(clock_.now() - known.at);
  message.set_fingerprint_age_ms(static_cast<std::uint64_t>(age.count()));
  message.set_tracker(known.tracker);
  message.set_not_mergeable(!known.is_mergeable);
  const auto told = told_.find(vm);
  if (told != told_.end()) {
    const std::vector<std::byte> delta = known.fingerprint.delta_since(told->second);
    message.set_fingerprint_delta(delta.data(), delta.size());
  }
  if (message.fingerprint_delta().empty()) {
    const std::vector<std::byte> whole = known.fingerprint.serialize();
    message.set_fingerprint(whole.data(), whole.size());
  }
  told_.insert_or_assign(vm, known.fingerprint);
}

Result<bus::VmList> Reporter::list() {
  bus::VmList list;
  for (const VmInfo& vm : TRY(hypervisor_.vms())) describe(vm, *list.add_vms());
  return list;
}

}  // namespace samepage::agent
