#include "pagecache/source_table.h"

#include <utility>

#include "core/check.h"
#include "pagecache/page_index.h"

namespace samepage::pagecache {

std::uint32_t SourceTable::put(SourceId id, std::unique_ptr<PageSource> source,
                               std::vector<PageCheck> checks) {
  Entry entry{.id = id,
              .source = std::move(source),
              .checks = std::make_shared<const std::vector<PageCheck>>(std::move(checks))};
  const MutexLock lock(mutex_);
  for (std::uint32_t slot = 0; slot < slots_.size(); ++slot) {
    if (slots_[slot].source != nullptr) continue;
    slots_[slot] = std::move(entry);
    return slot;
  }
  CHECK(slots_.size() < PageIndex::kSlotsMax);
  slots_.push_back(std::move(entry));
  return static_cast<std::uint32_t>(slots_.size() - 1);
}

SourceTable::Entry SourceTable::get(std::uint32_t slot) const {
  const MutexLock lock(mutex_);
  return slots_[slot];
}

void SourceTable::drop(std::uint32_t slot) {
  Entry dropped;  // Destroyed without the mutex.
  const MutexLock lock(mutex_);
  std::swap(dropped, slots_[slot]);
}

}  // namespace samepage::pagecache
