#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "core/page_hash.h"

namespace samepage::fingerprinter {

/// How many pages have each hash: a hash table with linear probing (Knuth, volume 3, 6.4), 12 bytes
/// a slot, at most two thirds full.
///
/// Threads: none of its own; const methods may run at the same time.
class HashCounts {
 public:
  explicit HashCounts(std::size_t expected = 0);

  /// The count of this hash after one more; 1: it is new.
  std::uint32_t add(PageHash hash);

  /// The count after one less; 0: it is gone. The hash must be there.
  std::uint32_t remove(PageHash hash);

  std::size_t size() const { return size_; }  ///< Distinct hashes.

  template <class Visit>
  void for_each(Visit visit) const {
    for (std::size_t i = 0; i < keys_.size(); ++i) {
      if (counts_[i] != 0) visit(PageHash{keys_[i]}, counts_[i]);
    }
  }

 private:
  std::size_t home(std::uint64_t key) const;
  std::size_t find(std::uint64_t key) const;
  void grow();

  std::vector<std::uint64_t> keys_;
  std::vector<std::uint32_t> counts_;  ///< 0: the slot is free.
  std::size_t size_ = 0;
};

}  // namespace samepage::fingerprinter
