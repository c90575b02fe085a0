#pragma once

#include <cstdint>
#include <initializer_list>
#include <random>
#include <vector>

#include "fingerprinter/fingerprint.h"

namespace samepage::fingerprinter {

using Hashes = std::vector<PageHash>;

inline Hashes random_hashes(std::size_t count, std::mt19937_64& random) {
  Hashes hashes(count);
  for (PageHash& hash : hashes) hash.value = random();
  return hashes;
}

/// A guest that holds the given sets of pages, and `zero` zero pages.
inline Fingerprint guest_of(std::initializer_list<const Hashes*> sets, std::uint64_t zero = 0) {
  Scan scan;
  scan.zero = zero;
  for (const Hashes* hashes : sets) {
    for (const PageHash hash : *hashes) scan.hashed.push_back({scan.hashed.size(), hash});
  }
  scan.pages = scan.hashed.size() + zero;
  return Fingerprint::of(scan);
}

}  // namespace samepage::fingerprinter
