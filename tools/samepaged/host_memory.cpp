#include "tools/samepaged/host_memory.h"

#include <fstream>
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

void put_host_memory(const std::vector<VmInfo>& vms, bus::HostMemory& memory) {
  memory.set_free_bytes(available_bytes());
  const auto frames = fingerprinter::count_frames(vms);
  if (!frames) {
    log_warning("frames not counted why=\"{}\"", frames.error().message());
    return;
  }
  memory.set_resident_pages(frames->resident_pages);
  memory.set_distinct_frames(frames->distinct_frames);
  memory.set_ksm_mapped_pages(frames->ksm_mapped_pages);
  memory.set_ksm_frames(frames->ksm_frames);
}

void put_ksm(bus::HostMemory& memory) {
  memory.set_ksm_runs(read_ksm("run") == 1);
  memory.set_ksm_full_scans(read_ksm("full_scans"));
}

}  // namespace samepage::agent
