#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>

#include "core/page_digest.h"
#include "core/result.h"
#include "imagestore/extent.h"

namespace samepage::imagestore {

/// Which extent holds the page with a given digest: what makes every image in the store share its
/// pages with every other. An SQLite file of hints that can be rebuilt from the extents alone: only
/// who stores pages asks it; who reads them is told by the manifest.
///
/// Invariant: names only extents that the origin held when commit() was called.
/// Threads: one at a time; open an index per thread; any number of them write, in any process.
/// Lifetime: additions that were not committed are dropped. After a power cut the last ones may be
/// missing, which costs room, not content.
/// Errors: the database's (core/database.h).
class PageIndex final {
 public:
  static Result<std::unique_ptr<PageIndex>> open(const std::string& path);

  ~PageIndex();
  PageIndex(const PageIndex&) = delete;
  PageIndex& operator=(const PageIndex&) = delete;

  /// Finds what was committed, by anybody.
  Result<std::optional<PagePlace>> find(const PageDigest& digest);

  /// Adds an extent's pages, in their order, with the next commit(). A page that is known already
  /// keeps its place, and so does an extent.
  void add(const ObjectName& extent, std::span<const PageDigest> digests);
  Result<bool> knows_extent(const ObjectName& extent);

  /// Drops extents and their pages, at once.
  Result<void> forget(std::span<const ObjectName> extents);

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
