#pragma once

#include <compare>
#include <cstdint>
#include <functional>

#include "core/page.h"

namespace samepage {

/// A cheap name for a page's content: XXH3-64 with the secret seed of a sharing domain. Used to
/// *find* pages (fingerprints, indexes, filters). Never proof that two pages are equal: that is
/// PageDigest. Hashes of different domains never match, because their seeds differ.
struct PageHash {
  std::uint64_t value = 0;

  friend auto operator<=>(const PageHash&, const PageHash&) = default;
};

/// The secret that makes one sharing domain's hashes unpredictable to guests.
struct HashSeed {
  std::uint64_t value = 0;
};

PageHash hash_page(PageView page, HashSeed seed);

}  // namespace samepage

template <>
struct std::hash<samepage::PageHash> {
  std::size_t operator()(const samepage::PageHash& page) const noexcept { return page.value; }
};
