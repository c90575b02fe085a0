#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "core/result.h"
#include "imagestore/image_store.h"

namespace samepage::imagestore {

/// A run of pages.
struct PageRange {
  std::uint64_t first = 0;
  std::uint64_t count = 0;

  friend bool operator==(const PageRange&, const PageRange&) = default;
};

/// Appends a page to ascending ranges.
void add_page(std::vector<PageRange>& ranges, std::uint64_t page);

struct DiffReport {
  std::uint64_t size_before = 0;  ///< Bytes.
  std::uint64_t size_after = 0;
  std::uint64_t pages = 0;    ///< Whose content differs.
  std::uint64_t zeroed = 0;   ///< Of these: zeros afterwards.
  std::uint64_t written = 0;  ///< Of these: zeros before.
};

/// Compares two versions, of one image or of two, and calls `visit` for every run of pages whose
/// content differs, ascending, until it fails. Costs what differs.
/// kNotFound: the store has no such version. kCorrupt: a manifest is damaged.
Result<DiffReport> diff_versions(ImageStore& store, const VersionId& before, const VersionId& after,
                                 const std::function<Result<void>(const PageRange&)>& visit);

}  // namespace samepage::imagestore
