#include "pagecache/checkpoint_store.h"

#include <utility>
#include <vector>

namespace samepage::pagecache {

Result<std::unique_ptr<CheckpointWriter>> CheckpointStore::begin(
    const SharingDomain& domain) const {
  return CheckpointWriter::create({.folder = options_.folder,
                                   .bytes_max = options_.bytes_max,
                                   .disk_free_min = options_.disk_free_min,
                                   .seed = domain.seed});
}

void CheckpointStore::keep(const VmInfo& vm, std::shared_ptr<const Checkpoint> checkpoint) {
  drop(vm.id);
  const MutexLock lock(mutex_);
  while (!entries_.empty() && held() + checkpoint->bytes() > options_.bytes_max) {
    entries_.pop_front();
  }
  if (checkpoint->bytes() > options_.bytes_max) return;
  entries_.push_back({.vm = vm.id,
                      .vm_name = vm.name,
                      .domain = vm.sharing_domain,
                      .checkpoint = std::move(checkpoint)});
}

void CheckpointStore::drop(const VmId& vm) {
  const MutexLock lock(mutex_);
  std::erase_if(entries_, [&](const Entry& entry) { return entry.vm == vm; });
}

void CheckpointStore::add_to(PageCache& cache, const SharingDomain& domain, const VmId& vm,
                             Which which) const {
  std::vector<Entry> chosen;
  {
    const MutexLock lock(mutex_);
    for (const Entry& entry : entries_) {
      const bool is_its_own = entry.vm == vm;
      if (entry.domain == domain.name && is_its_own == (which == Which::kOfVm)) {
        chosen.push_back(entry);
      }
    }
  }
  for (const Entry& entry : chosen) {
    cache.add(std::make_unique<CheckpointSource>(entry.checkpoint, entry.vm_name),
              entry.checkpoint->pages());
  }
}

std::uint64_t CheckpointStore::bytes() const {
  const MutexLock lock(mutex_);
  return held();
}

std::uint64_t CheckpointStore::held() const {
  std::uint64_t bytes = 0;
  for (const Entry& entry : entries_) bytes += entry.checkpoint->bytes();
  return bytes;
}

}  // namespace samepage::pagecache
