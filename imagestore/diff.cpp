#include "imagestore/diff.h"

#include "imagestore/manifest.h"

namespace samepage::imagestore {

void add_page(std::vector<PageRange>& ranges, std::uint64_t page) {
  if (!ranges.empty() && ranges.back().first + ranges.back().count == page) {
    ++ranges.back().count;
  } else {
    ranges.push_back({.first = page, .count = 1});
  }
}

Result<DiffReport> diff_versions(ImageStore& store, const VersionId& before, const VersionId& after,
                                 const std::function<Result<void>(const PageRange&)>& visit) {
  Manifest one = TRY(Manifest::open(store.origin(), store.keys(), before));
  Manifest other = TRY(Manifest::open(store.origin(), store.keys(), after));
  DiffReport report{.size_before = one.size_bytes(), .size_after = other.size_bytes()};
  std::vector<PageRange> ranges;  // The one that may grow, and for a moment the next.
  const auto change = [&](std::uint64_t page, const std::optional<PageRef>& was,
                          const std::optional<PageRef>& is) -> Result<void> {
    ++report.pages;
    if (!is) ++report.zeroed;
    if (!was) ++report.written;
    add_page(ranges, page);
    if (ranges.size() < 2) return {};
    TRY(visit(ranges.front()));
    ranges.erase(ranges.begin());
    return {};
  };
  TRY(Manifest::diff(one, other, change));
  if (!ranges.empty()) TRY(visit(ranges.front()));
  return report;
}

}  // namespace samepage::imagestore
