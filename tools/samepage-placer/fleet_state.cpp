#include "tools/samepage-placer/fleet_state.h"

#include <algorithm>
#include <optional>
#include <span>
#include <utility>

namespace samepage::control {
namespace {

std::vector<std::byte> bytes_of(const std::string& text) {
  const auto bytes = std::as_bytes(std::span(text));
  return {bytes.begin(), bytes.end()};
}

/// A number of milliseconds that a hostile sender cannot make overflow.
std::chrono::milliseconds age(std::uint64_t ms) {
  constexpr std::uint64_t kYearMs = 31'536'000'000;
  return std::chrono::milliseconds(static_cast<std::int64_t>(std::min(ms, kYearMs)));
}

std::optional<fingerprinter::MemoryShares> read_memory(const bus::Vm& vm) {
  if (!vm.has_memory()) return std::nullopt;
  return fingerprinter::MemoryShares{.own = vm.memory().own_pages(),
                                     .of_template = vm.memory().template_pages(),
                                     .ksm = vm.memory().ksm_pages()};
}

placer::ReportedVm read_vm(const bus::Vm& vm) {
  return {.uuid = vm.uuid(),
          .name = vm.name(),
          .state = vm_state(vm.state()),
          .memory_bytes = vm.memory_bytes(),
          .vcpus = vm.vcpus(),
          .cpu_seconds = vm.cpu_seconds(),
          .sharing_domain = vm.sharing_domain(),
          .fingerprint = bytes_of(vm.fingerprint()),
          .fingerprint_age = age(vm.fingerprint_age_ms()),
          .network_bytes = vm.network_bytes(),
          .disk_bytes = vm.disk_bytes(),
          .fingerprint_delta = bytes_of(vm.fingerprint_delta()),
          .tracker = vm.tracker(),
          .is_mergeable = !vm.not_mergeable(),
          .template_id = vm.template_id(),
          .memory = read_memory(vm)};
}

}  // namespace

VmState vm_state(bus::GuestState state) {
  switch (state) {
    case bus::GUEST_RUNNING:
      return VmState::kRunning;
    case bus::GUEST_PAUSED:
      return VmState::kPaused;
    default:
      return VmState::kOther;
  }
}

Result<void> FleetState::enroll(const std::string& host) {
  const MutexLock lock(mutex_);
  return roster_.enroll(host);
}

Result<void> FleetState::forget(const std::string& host) {
  const MutexLock lock(mutex_);
  return roster_.forget(host);
}

Result<void> FleetState::hello(const std::string& host, const bus::Hello& hello) {
  const MutexLock lock(mutex_);
  return roster_.hello(host, {.agent_version = hello.agent_version(),
                              .hypervisor_version = hello.hypervisor_version(),
                              .memory_bytes = hello.memory_bytes(),
                              .cpus = hello.cpus(),
                              .address = hello.data_address(),
                              .hardware = hello.hardware(),
                              .link_bytes_s = hello.link_bytes_per_s(),
                              .boots_at_once = hello.boots_at_once()});
}

Result<std::vector<std::string>> FleetState::report(const std::string& host,
                                                    const bus::HostReport& report) {
  placer::HostReport read;
  read.vms.reserve(static_cast<std::size_t>(report.vms_size()));
  for (const bus::Vm& vm : report.vms()) read.vms.push_back(read_vm(vm));
  read.memory = {.resident_pages = report.memory().resident_pages(),
                 .distinct_frames = report.memory().distinct_frames(),
                 .ksm_mapped_pages = report.memory().ksm_mapped_pages(),
                 .ksm_frames = report.memory().ksm_frames(),
                 .free_bytes = report.memory().free_bytes(),
                 .ksm_runs = report.memory().ksm_runs(),
                 .ksm_full_scans = report.memory().ksm_full_scans()};
  read.counted = age(report.memory().counted_ms());
  read.clock = age(report.clock_ms());
  read.cpu_stalled = report.cpu_stalled();
  read.memory_stalled = report.memory_stalled();
  read.io_stalled = report.io_stalled();
  const MutexLock lock(mutex_);
  return roster_.report(host, read);
}

bool FleetState::wants_whole(const std::string& host) const {
  const MutexLock lock(mutex_);
  return roster_.wants_whole(host);
}

void FleetState::lost(const std::string& host) {
  const MutexLock lock(mutex_);
  roster_.lost(host);
}

void FleetState::set_domains(const std::set<std::string>& domains) {
  const MutexLock lock(mutex_);
  roster_.set_domains(domains);
}

void FleetState::set_labels(placer::PolicyStore::Labels labels) {
  const MutexLock lock(mutex_);
  roster_.set_labels(std::move(labels));
}

std::vector<placer::UsageSample> FleetState::take_samples() {
  const MutexLock lock(mutex_);
  return roster_.take_samples();
}

std::vector<placer::MemorySample> FleetState::take_memory_samples() {
  const MutexLock lock(mutex_);
  return roster_.take_memory_samples();
}

void FleetState::restore(const std::vector<placer::UsageSample>& samples) {
  const MutexLock lock(mutex_);
  roster_.restore(samples);
}

Result<void> FleetState::tell(const VmId& vm, const placer::AppFigure& figure) {
  const MutexLock lock(mutex_);
  return roster_.tell(vm, figure);
}

placer::Fleet FleetState::fleet() const {
  const MutexLock lock(mutex_);
  return roster_.fleet();
}

}  // namespace samepage::control
