#pragma once

#include <cstdint>
#include <deque>
#include <future>
#include <optional>
#include <unordered_map>
#include <vector>

#include "core/page.h"
#include "core/page_digest.h"
#include "core/result.h"
#include "imagestore/extent.h"
#include "imagestore/image_store.h"
#include "imagestore/worker_pool.h"

namespace samepage::imagestore {

/// Gathers pages that the store does not hold into extents, and stores them: the one way in for
/// pages, of imports and commits.
///
/// Pages that come one after the other lie side by side, unless a layout was given: then each page
/// of the layout lies where the layout says, as far as it comes.
///
/// Invariant: place() of an added page is known by flush() at the latest, and its extent is with
/// the origin by then. The caller commits the store.
/// Threads: one at a time; compresses in the pool. Memory: 16 extents, the layout's pages that wait
/// for their neighbours, and 64 bytes for each new page since forget_places().
/// Lifetime: borrows store and pool.
class PagePacker {
 public:
  /// Without a pool, what compresses is the caller's thread. `extent_pages`: 1 to kExtentPagesMax.
  PagePacker(ImageStore& store, WorkerPool* workers, std::size_t extent_pages = kExtentPagesMax)
      : store_(store), workers_(workers), extent_pages_(extent_pages) {}

  /// Pages that shall lie together, in this order. Only of pages that will be added; each once.
  void lay_out(std::span<const PageDigest> order);

  /// Adds a page, unless the store holds it or it was added before. Errors are the store's.
  Result<void> add(const PageDigest& digest, PageView page);

  /// Where an added page lies; none for as long as its extent is not full.
  std::optional<PagePlace> place(const PageDigest& digest) const;

  /// Stores what was added so far, but for extents of the layout that have gaps; every place is
  /// known then.
  Result<void> flush();

  /// The same when nothing follows. kIo: pages of the layout did not come.
  Result<void> finish();

  /// After the store's commit: its page index knows the places now.
  void forget_places();

  std::uint64_t new_pages() const { return new_pages_; }
  std::uint64_t extents() const { return extents_; }
  std::uint64_t stored_bytes() const { return stored_bytes_; }

 private:
  struct Packed {
    EncodedExtent encoded;
    std::vector<PageDigest> digests;
  };
  /// An extent of the layout: its pages may come in any order.
  struct Planned {
    Extent extent;
    std::size_t missing = 0;
  };

  void pack(Extent extent);
  Result<void> store_packed(std::size_t left);
  Result<void> add_planned(const PagePlace& place, PageView page);

  ImageStore& store_;
  WorkerPool* workers_;
  const std::size_t extent_pages_;
  Extent open_;
  std::unordered_map<PageDigest, std::optional<PagePlace>> places_;  ///< None: in the open extent.
  std::unordered_map<PageDigest, PagePlace> layout_;  ///< Of pages that have not come yet.
  std::unordered_map<ObjectName, Planned> planned_;
  std::deque<std::future<Packed>> packing_;
  std::uint64_t new_pages_ = 0;
  std::uint64_t extents_ = 0;
  std::uint64_t stored_bytes_ = 0;
};

}  // namespace samepage::imagestore
