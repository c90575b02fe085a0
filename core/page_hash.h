#pragma once

#include <array>
#include <compare>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>

#include "core/page.h"
#include "core/page_hash_kernels.h"

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

/// The same for many pages at once, about as fast as memory can be read.
///
/// Threads: any number at once.
class PageHasher {
 public:
  explicit PageHasher(HashSeed seed);

  /// By a certain one of page_hash_kernels.h.
  PageHasher(HashSeed seed, page_hash_kernels::Kernel kernel);

  /// A hash for each of the pages, which follow each other.
  void hash(std::span<const std::byte> pages, std::span<PageHash> hashes) const;

 private:
  page_hash_kernels::Kernel kernel_;
  alignas(64) std::array<std::byte, 192> secret_{};  ///< XXH3's, made of the seed.
};

}  // namespace samepage

template <>
struct std::hash<samepage::PageHash> {
  std::size_t operator()(const samepage::PageHash& page) const noexcept { return page.value; }
};
