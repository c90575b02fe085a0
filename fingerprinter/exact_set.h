#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "core/fd.h"
#include "core/page_hash.h"
#include "core/result.h"
#include "fingerprinter/fingerprint.h"

namespace samepage::fingerprinter {

/// Every distinct content of one guest's RAM: what a fingerprint estimates, exact but for
/// collisions of 64-bit hashes (one among 2^32 pages), in 2 MiB for each GiB instead of 16 KiB. For
/// answers offline, from RAM images in files.
///
/// Threads: immutable; const methods may run at the same time.
class ExactSet {
 public:
  /// Reads a raw RAM image: whole pages, by guest address. Holes count as untouched. kInvalid: its
  /// size is no multiple of a page, or zero. kIo: it cannot be read.
  static Result<ExactSet> read(const Fd& image, HashSeed seed);

  const PageCounts& counts() const { return counts_; }

  /// The distinct contents, zero left out, rising.
  std::span<const PageHash> hashes() const { return hashes_; }

 private:
  PageCounts counts_;
  std::vector<PageHash> hashes_;
};

/// Distinct contents that both hold.
std::uint64_t common_pages(const ExactSet& a, const ExactSet& b);

/// What merging equal pages saves when these guests share one host; see Sharing in overlap.h.
struct ExactSharing {
  std::uint64_t zero = 0;
  std::uint64_t within = 0;
  std::uint64_t between = 0;

  std::uint64_t total() const { return zero + within + between; }
};
ExactSharing exact_sharing(std::span<const ExactSet> guests);

}  // namespace samepage::fingerprinter
