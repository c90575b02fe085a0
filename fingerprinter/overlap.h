#pragma once

#include <cstdint>
#include <span>

#include "fingerprinter/fingerprint.h"

namespace samepage::fingerprinter {

/// A number of pages, estimated, and the interval that holds the true number 95 times in 100.
struct Estimate {
  double pages = 0;
  double low = 0;
  double high = 0;
};

/// Distinct page contents, zero left out, that both guests hold. Both fingerprints must be of one
/// sharing domain: those of different domains look as if nothing were shared.
///
/// The interval covers what sampling and colliding cells do by chance. It does not cover pages that
/// changed since the scans. Sketches too full to say anything give the widest possible interval.
Estimate overlap(const Fingerprint& a, const Fingerprint& b);

/// Distinct page contents, zero left out, of the guests together.
Estimate footprint(std::span<const Fingerprint> fingerprints);

/// What merging equal pages (KSM) saves when these guests share one host: populated pages less
/// distinct contents, all zero pages being one content. KSM itself keeps one frame for every 256
/// copies (max_page_sharing), so of a content held thousands of times some more frames remain.
struct Sharing {
  std::uint64_t zero = 0;    ///< Exact.
  std::uint64_t within = 0;  ///< Exact: copies inside each guest.
  Estimate between;          ///< Copies in different guests.

  Estimate total() const {
    const auto exact = static_cast<double>(zero + within);
    return {between.pages + exact, between.low + exact, between.high + exact};
  }
};

Sharing sharing(std::span<const Fingerprint> fingerprints);

}  // namespace samepage::fingerprinter
