#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "core/page_hash.h"
#include "pagecache/page_cache.h"

namespace samepage::migrator {

/// The most pages that a base tells of, 64 GiB. Later ones are as if it had none.
inline constexpr std::size_t kBasePagesMax = 16U << 20U;

/// Of a source of pages on the target's host that is like the guest (its own checkpoint when it
/// comes home, or a twin that lies in memory alike): a check of each page by its number. A page
/// that agrees is sent as nothing but its place in a run.
struct BasePages {
  std::vector<pagecache::PageCheck> checks;  ///< 0: there is no such page.

  bool agrees(std::uint64_t page, PageHash hash) const {
    return page < checks.size() && checks[page] == pagecache::check_of(hash);
  }
};

}  // namespace samepage::migrator
