#pragma once

#include <cstdint>
#include <vector>

#include "core/page_hash.h"
#include "core/result.h"
#include "fingerprinter/guest_memory.h"

namespace samepage::fingerprinter {

struct ScannedPage {
  std::uint64_t page = 0;
  PageHash hash;
};

/// What one pass over a guest's RAM found. Pages that change while it runs are hashed as they were
/// at some moment of the pass; users treat every hash as a hint.
struct Scan {
  std::uint64_t pages = 0;          ///< The guest's RAM, absent pages included.
  std::uint64_t zero = 0;           ///< Populated, but every byte is zero.
  std::vector<ScannedPage> hashed;  ///< Populated and not zero, by rising page number.
  double seconds = 0;
};

/// Hashes every populated page with `seed`. kNotFound: the guest ended during the scan.
Result<Scan> scan(GuestMemory& memory, HashSeed seed);

}  // namespace samepage::fingerprinter
