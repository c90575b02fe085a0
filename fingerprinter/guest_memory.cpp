#include "fingerprinter/guest_memory.h"

#include <algorithm>
#include <utility>

#include "core/page.h"
#include "fingerprinter/guest_process.h"
#include "fingerprinter/private_memory.h"
#include "fingerprinter/shared_memory.h"

namespace samepage::fingerprinter {

Result<std::vector<PageRun>> GuestMemory::populated_within(PageRun range) {
  std::vector<PageRun> within;
  for (const PageRun& run : TRY(populated())) {
    const std::uint64_t first = std::max(run.first, range.first);
    const std::uint64_t end = std::min(run.first + run.count, range.first + range.count);
    if (first < end) within.push_back({first, end - first});
  }
  return within;
}

Result<void> GuestMemory::read_runs(std::span<const PageRun> runs,
                                    std::span<std::byte> destination) {
  for (const PageRun& run : runs) {
    TRY(read(run.first, destination.first(run.count * kPageSize)));
    destination = destination.subspan(run.count * kPageSize);
  }
  return {};
}

Result<std::span<const std::byte>> GuestMemory::view(PageRun /*run*/) {
  return std::span<const std::byte>();
}

Result<void> GuestMemory::shared_frames(std::uint64_t /*first*/, std::span<std::uint64_t> frames) {
  std::ranges::fill(frames, 0);
  return {};
}

Result<std::unique_ptr<GuestMemory>> open_guest_memory(const VmInfo& vm) {
  GuestProcess process = TRY(GuestProcess::open(vm.pid));
  const std::vector<Mapping> mappings = TRY(process.mappings());
  auto ram = find_ram(mappings, vm.memory_bytes);
  if (!ram) {
    return tl::unexpected(std::move(ram).error().within(
        "RAM of guest " + vm.name + " is not one block (memory plugged in while it runs?)"));
  }

  Fd file;
  if (ram->file_backed()) file = TRY(process.open_file(ram->first));
  if (ram->first.shared) return open_shared_memory(std::move(process), *ram, std::move(file));
  return open_private_memory(std::move(process), *ram, std::move(file));
}

}  // namespace samepage::fingerprinter
