#include "tools/samepaged/host_memory.h"

#include <algorithm>
#include <fstream>
#include <optional>
#include <string>

#include "core/log.h"
#include "fingerprinter/ksm_accounting.h"

namespace samepage::agent {
namespace {

std::uint64_t available_bytes() {
  std::ifstream file("/proc/meminfo");
  std::string key;
  std::uint64_t kib = 0;
  std::string unit;
  while (file >> key >> kib) {
    if (key == "MemAvailable:") return kib << 10U;
    std::getline(file, unit);
  }
  return 0;
}

std::uint64_t read_ksm(const char* file) {
  std::uint64_t value = 0;
  std::ifstream(std::string("/sys/kernel/mm/ksm/") + file) >> value;
  return value;
}

}  // namespace

void HostMemory::renew(const std::vector<VmInfo>& vms, bool must) {
  if (must || is_due(vms)) {
    const auto started = clock_.now();
    count(vms);
    const auto took = std::chrono::duration<double>(clock_.now() - started);
    const auto pause = took / options_.time_share - took;
    due_at_ = clock_.now() + std::chrono::duration_cast<std::chrono::steady_clock::duration>(pause);
  }
  counted_.set_free_bytes(available_bytes());
}

bool HostMemory::is_due(const std::vector<VmInfo>& vms) const {
  if (clock_.now() >= due_at_ || vms.size() != shares_.size()) return true;
  return !std::all_of(vms.begin(), vms.end(),
                      [&](const VmInfo& vm) { return shares_.contains(vm.id); });
}

void HostMemory::count(const std::vector<VmInfo>& vms) {
  counted_.Clear();
  shares_.clear();
  for (const VmInfo& vm : vms) shares_[vm.id] = std::nullopt;
  if (options_.observes_ksm) {
    counted_.set_ksm_runs(read_ksm("run") == 1);
    counted_.set_ksm_full_scans(read_ksm("full_scans"));
  }
  const auto now = clock_.now().time_since_epoch();
  const auto frames = fingerprinter::count_frames(vms);
  if (!frames) {
    log_warning("frames not counted why=\"{}\"", frames.error().message());
    return;
  }
  const auto uptime = std::chrono::duration_cast<std::chrono::milliseconds>(now).count();
  counted_.set_counted_ms(static_cast<std::uint64_t>(std::max<std::int64_t>(uptime, 1)));
  counted_.set_resident_pages(frames->resident_pages);
  counted_.set_distinct_frames(frames->distinct_frames);
  counted_.set_ksm_mapped_pages(frames->ksm_mapped_pages);
  counted_.set_ksm_frames(frames->ksm_frames);
  for (std::size_t i = 0; i < vms.size(); ++i) shares_[vms[i].id] = frames->shares[i];
}

void HostMemory::put(bus::HostReport& report) const {
  *report.mutable_memory() = counted_;
  for (bus::Vm& vm : *report.mutable_vms()) {
    const auto found = shares_.find(VmId{vm.uuid()});
    if (found == shares_.end() || !found->second) continue;
    vm.mutable_memory()->set_own_pages(found->second->own);
    vm.mutable_memory()->set_template_pages(found->second->of_template);
    vm.mutable_memory()->set_ksm_pages(found->second->ksm);
  }
}

}  // namespace samepage::agent
