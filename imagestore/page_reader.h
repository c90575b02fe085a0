#pragma once

#include <cstddef>
#include <list>
#include <unordered_map>
#include <utility>

#include "core/page.h"
#include "core/page_digest.h"
#include "core/result.h"
#include "imagestore/extent.h"
#include "imagestore/image_store.h"
#include "imagestore/manifest_node.h"

namespace samepage::imagestore {

/// Pages of manifests, out of a store's extents, with the extents read last kept decompressed.
///
/// Invariant: a page that is handed out has the digest that it was asked by.
/// Threads: one at a time. Lifetime: borrows the store. Memory: `extents_max` times 128 KiB.
class PageReader final {
 public:
  explicit PageReader(ImageStore& store, std::size_t extents_max = 64);

  /// kCorrupt: the store promised the page and cannot deliver it; the message names the place.
  /// `page` holds garbage after an error.
  Result<void> read(const PageRef& ref, PageBuffer page);

 private:
  using Recent = std::list<std::pair<ObjectName, Extent>>;

  Result<const Extent*> load(const ObjectName& name);

  ImageStore& store_;
  const std::size_t extents_max_;
  Recent recent_;  ///< Most recently used first.
  std::unordered_map<ObjectName, Recent::iterator> by_name_;
};

}  // namespace samepage::imagestore
