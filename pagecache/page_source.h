#pragma once

#include <cstdint>
#include <span>
#include <string>

#include "core/page.h"
#include "core/result.h"

namespace samepage::pagecache {

/// Something on this host that holds pages: a running guest's RAM, a template, an image's chunks.
/// What it returns may be stale or torn; PageCache verifies.
/// Threads: every method may be called from any thread.
class PageSource {
 public:
  virtual ~PageSource() = default;

  /// Copies page `page` (the source's own numbering). kNotFound: the source or the page is gone.
  virtual Result<void> read(std::uint64_t page, PageBuffer destination) = 0;

  /// Copies several pages, rising, one behind the other. Errors as read(), and then `destination`
  /// holds garbage.
  virtual Result<void> read_many(std::span<const std::uint64_t> pages,
                                 std::span<std::byte> destination) {
    for (const std::uint64_t page : pages) {
      TRY(read(page, destination.first<kPageSize>()));
      destination = destination.subspan(kPageSize);
    }
    return {};
  }

  /// For messages: "guest web3".
  virtual std::string name() const = 0;
};

}  // namespace samepage::pagecache
