#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "core/page_hash.h"
#include "core/result.h"

namespace samepage::fingerprinter {

/// A Bloom filter over page hashes (Bloom 1970): says "surely not in the set" or "probably in it".
/// The hashes are uniform already, so the k cell numbers come from the hash by double hashing
/// (Kirsch and Mitzenmacher 2006), without hashing again.
///
/// Threads: none of its own; const methods may run at the same time.
class BloomFilter {
 public:
  /// `cells`: bits, rounded up to a multiple of 64, at least 64; `k`: cells per hash, 1 to 16.
  BloomFilter(std::size_t cells, unsigned k);

  /// The filter with about `false_positive_rate` (0 < rate < 1) for `count` hashes, but of at most
  /// `cells_max` cells: the rate rises when they do not suffice, and k is the best for that size.
  static BloomFilter sized_for(std::size_t count, double false_positive_rate,
                               std::size_t cells_max = SIZE_MAX);

  void add(PageHash hash);
  bool lookup(PageHash hash) const;

  std::size_t cells() const { return words_.size() * 64; }
  unsigned k() const { return k_; }
  std::span<const std::uint64_t> words() const { return words_; }

  /// The form in docs/formats/fingerprinter.md.
  std::vector<std::byte> serialize() const;

  /// kCorrupt: not a filter, or larger than `bytes_max`.
  static Result<BloomFilter> parse(std::span<const std::byte> bytes, std::size_t bytes_max);

 private:
  unsigned k_;
  std::vector<std::uint64_t> words_;
};

}  // namespace samepage::fingerprinter
