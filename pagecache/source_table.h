#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "core/mutex.h"
#include "pagecache/page_cache.h"

namespace samepage::pagecache {

/// A cache's sources by slot, the small number that index entries carry. A slot is used again only
/// after its entries are gone; a lookup that raced with that reads a wrong page, which its hash or
/// digest tells. Threads: every method may be called from any thread.
class SourceTable {
 public:
  struct Entry {
    SourceId id;
    std::shared_ptr<PageSource> source;  ///< Null: nothing is in the slot.
    std::shared_ptr<const std::vector<PageCheck>> checks;
  };

  /// The new source's slot.
  std::uint32_t put(SourceId id, std::unique_ptr<PageSource> source, std::vector<PageCheck> checks);

  Entry get(std::uint32_t slot) const;
  void drop(std::uint32_t slot);

 private:
  mutable Mutex mutex_;
  std::vector<Entry> slots_ GUARDED_BY(mutex_);
};

}  // namespace samepage::pagecache
