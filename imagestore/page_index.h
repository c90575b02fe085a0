#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>

#include "core/page_digest.h"
#include "core/result.h"
#include "imagestore/origin.h"

namespace samepage::imagestore {

/// Where a page is: which extent, and which page of it.
struct PagePlace {
  ObjectName extent;
  std::uint32_t slot = 0;
};

/// Which extent holds the page with a given digest: what makes every image in the store share its
/// pages with every other. An SQLite file that can be rebuilt from the extents alone.
///
/// Invariant: names only extents that the origin held when commit() was called.
/// Threads: one at a time; open an index per thread. Lifetime: additions that were not committed
/// are dropped.
/// Errors: the database's (core/database.h).
class PageIndex final {
 public:
  static Result<std::unique_ptr<PageIndex>> open(const std::string& path);

  ~PageIndex();
  PageIndex(const PageIndex&) = delete;
  PageIndex& operator=(const PageIndex&) = delete;

  Result<std::optional<PagePlace>> find(const PageDigest& digest);
  Result<bool> contains(const PageDigest& digest);

  /// Adds an extent's pages, in their order. A page that is known already keeps its place, and
  /// so does an extent.
  Result<void> add(const ObjectName& extent, std::span<const PageDigest> digests);
  Result<bool> knows_extent(const ObjectName& extent);

  /// Extents known.
  Result<std::uint64_t> extents();

  Result<void> commit();
  void discard();

 private:
  class Impl;
  explicit PageIndex(std::unique_ptr<Impl> impl);

  std::unique_ptr<Impl> impl_;
};

}  // namespace samepage::imagestore
