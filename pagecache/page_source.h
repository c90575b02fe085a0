#pragma once

#include <cstdint>
#include <string>

#include "core/page.h"
#include "core/result.h"

namespace samepage::pagecache {

/// Something on this host that holds pages: a running guest's RAM, a template, an image's chunks.
/// What it returns may be stale or torn; PageCache verifies.
/// Threads: read() may be called from any thread.
class PageSource {
 public:
  virtual ~PageSource() = default;

  /// Copies page `page` (the source's own numbering). kNotFound: the source or the page is gone.
  virtual Result<void> read(std::uint64_t page, PageBuffer destination) = 0;

  /// For messages: "guest web3".
  virtual std::string name() const = 0;
};

}  // namespace samepage::pagecache
