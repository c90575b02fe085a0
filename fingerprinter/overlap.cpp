#include "fingerprinter/overlap.h"

#include <algorithm>
#include <cmath>
#include <memory>
#include <vector>

// How pages common to two sets follow from their sketches
//
// One band: m cells, and of each set's hashes the share q falls into it. A cell stays empty with
// probability Z = exp(-n q / m) for a set of n hashes (Whang et al. 1990). With Z1, Z2 measured on
// the two bitmaps and Z12 on their OR, the hashes that the band has in common are
//
//     f = m (ln Z12 - ln Z1 - ln Z2)
//
// which is Memory Buddies' Eq. 1 for k = 1 with zero bits of the OR written as z1 + z2 - z12. The
// pages in common are f / q. By the delta method the variance of f is
//
//     m (1/Z12 - 1/Z1 - 1/Z2 + 2 Z12/(Z1 Z2) - 1)
//
// It holds the noise of colliding cells and that of the sample: in nearly empty bands it tends to
// f itself, the variance of a sample in which each common page is found independently.
//
// All bands together: the mean of f / q weighted by the inverse of their variances. Each common
// page is in exactly one band, so the bands' sampling errors cancel in part; for weights that sum
// to 1 that takes c, the number of common pages, off the variance. With a single band of share p
// this is the known sqrt(c (1-p)/p); with all bands nearly empty nothing is left of it.
//
// More sets: the copies to be saved, sum of n - size of the union, are m (ln Z_or - sum of ln Z) /
// q alike. The variance comes from the influence of a single cell, 1/Z_or if it is empty in the OR
// less 1/Z for each set in which it is empty: measured over a part of the cells (the "infinitesimal
// jackknife"), since a formula would need every pair. In nearly empty bands it is inversely
// proportional to q, and is taken from the fullest of them.

namespace samepage::fingerprinter {
namespace {

constexpr double kCells = Sketch::kBandCells;
constexpr double kZ95 = 1.96;

// Below this many empty cells a band knows next to nothing, and the delta method fails.
constexpr double kEmptyMin = kCells / 32;
// The delta method is good to about one page a band, which only shows in sets of a few thousand.
constexpr double kRoughness = Sketch::kBands;
// Bands emptier than this have few colliding cells, and too few set ones to measure a variance on.
constexpr double kSparse = 0.25;

/// One band's estimate of all pages in question.
struct BandEstimate {
  double pages = 0;
  double variance = 0;
};

/// At least one page of a band is always uncertain; keeps empty bands from claiming certainty.
double variance_of(double cell_variance, double share) {
  return std::max(cell_variance * kCells, 1.0) / (share * share);
}

/// `pages_max`: the number that cannot be exceeded.
Estimate combine(std::span<const BandEstimate> bands, double pages_max) {
  if (bands.empty() || pages_max == 0) return {0, 0, pages_max};
  double weights = 0;
  double pages = 0;
  for (const BandEstimate& band : bands) {
    weights += 1 / band.variance;
    pages += band.pages / band.variance;
  }
  pages = std::clamp(pages / weights, 0.0, pages_max);
  const double variance = std::max(1 / weights - pages, 0.0) + kRoughness;
  const double margin = kZ95 * std::sqrt(variance);
  return {pages, std::max(pages - margin, 0.0), std::min(pages + margin, pages_max)};
}

double load(double occupied) {
  return -std::log1p(-occupied / kCells);
}

/// What one band says of two sets, without its variance.
struct PairBand {
  double share = 0;
  double pages = 0;
};

std::vector<PairBand> compare(const Fingerprint& a, const Fingerprint& b) {
  std::vector<PairBand> bands;
  for (std::size_t i = 0; i < Sketch::kBands; ++i) {
    const auto either = static_cast<double>(count_cells(a.sketch().band(i), b.sketch().band(i)));
    if (either > kCells - kEmptyMin) continue;
    const double common = load(static_cast<double>(a.occupied(i))) +
                          load(static_cast<double>(b.occupied(i))) - load(either);
    bands.push_back({Sketch::share(i), kCells * common / Sketch::share(i)});
  }
  return bands;
}

/// The sizes of two sets. A band's variance follows from them and not from its own bitmaps, which
/// would tie its weight to its error.
struct PairSizes {
  double a = 0;
  double b = 0;
  double common = 0;  ///< As far as known.

  double variance(double share) const {
    const double cell = share / kCells;
    return variance_of(std::exp((a + b - common) * cell) - std::exp(a * cell) - std::exp(b * cell) +
                           2 * std::exp(common * cell) - 1,
                       share);
  }
};

Estimate estimate_pair(std::span<const PairBand> bands, const PairSizes& sets) {
  std::vector<BandEstimate> estimates;
  for (const PairBand& band : bands) estimates.push_back({band.pages, sets.variance(band.share)});
  return combine(estimates, std::min(sets.a, sets.b));
}

/// The variance of one cell's influence on one band's estimate, over every fourth word.
double influence_variance(std::span<const Fingerprint> fingerprints, const Sketch::Band& all,
                          std::size_t index) {
  constexpr std::size_t kStep = 4;
  constexpr std::size_t kSampled = Sketch::kBandWords / kStep * 64;
  std::vector<double> influence(kSampled);
  const auto add = [&influence](const Sketch::Band& band, double weight) {
    for (std::size_t cell = 0; cell < kSampled; ++cell) {
      const std::uint64_t word = band.words[cell / 64 * kStep];
      influence[cell] += (word >> (cell % 64) & 1U) == 0 ? weight : 0;
    }
  };
  add(all, kCells / (kCells - static_cast<double>(count_cells(all))));
  for (const Fingerprint& one : fingerprints) {
    add(one.sketch().band(index), -kCells / (kCells - static_cast<double>(one.occupied(index))));
  }

  double sum = 0;
  double squares = 0;
  for (const double value : influence) {
    sum += value;
    squares += value * value;
  }
  return (squares - sum * sum / kSampled) / (kSampled - 1);
}

/// Copies that one frame each could replace: the guests' distinct contents, less those of the
/// union.
Estimate copies(std::span<const Fingerprint> fingerprints, double pages_max) {
  const auto all = std::make_unique<Sketch>();
  for (const Fingerprint& one : fingerprints) all->merge(one.sketch());

  std::vector<BandEstimate> bands;
  double sparse_variance = 0;  // Times the share: that is the same for all sparse bands.
  for (std::size_t i = 0; i < Sketch::kBands; ++i) {
    const auto occupied = static_cast<double>(count_cells(all->band(i)));
    if (occupied > kCells - kEmptyMin) continue;
    double common = -load(occupied);
    for (const Fingerprint& one : fingerprints) {
      common += load(static_cast<double>(one.occupied(i)));
    }
    const double share = Sketch::share(i);
    const double variance =
        sparse_variance > 0 ? std::max(sparse_variance / share, 1 / (share * share))
                            : variance_of(influence_variance(fingerprints, all->band(i), i), share);
    if (occupied < kSparse * kCells && sparse_variance == 0) sparse_variance = variance * share;
    bands.push_back({kCells * common / share, variance});
  }
  return combine(bands, pages_max);
}

Estimate between(std::span<const Fingerprint> fingerprints) {
  if (fingerprints.size() < 2) return {};
  if (fingerprints.size() == 2) return overlap(fingerprints[0], fingerprints[1]);
  double sum = 0;
  double largest = 0;
  for (const Fingerprint& one : fingerprints) {
    const auto unique = static_cast<double>(one.counts().unique);
    sum += unique;
    largest = std::max(largest, unique);
  }
  return copies(fingerprints, sum - largest);
}

}  // namespace

Estimate overlap(const Fingerprint& a, const Fingerprint& b) {
  const std::vector<PairBand> bands = compare(a, b);
  PairSizes sets{static_cast<double>(a.counts().unique), static_cast<double>(b.counts().unique), 0};
  sets.common = estimate_pair(bands, sets).pages;
  return estimate_pair(bands, sets);
}

Estimate footprint(std::span<const Fingerprint> fingerprints) {
  double sum = 0;
  for (const Fingerprint& one : fingerprints) sum += static_cast<double>(one.counts().unique);
  const Estimate saved = between(fingerprints);
  return {sum - saved.pages, sum - saved.high, sum - saved.low};
}

Sharing sharing(std::span<const Fingerprint> fingerprints) {
  Sharing sharing{.between = between(fingerprints)};
  for (const Fingerprint& one : fingerprints) {
    sharing.zero += one.counts().zero;
    sharing.within += one.counts().duplicate;
  }
  if (sharing.zero > 0) --sharing.zero;
  return sharing;
}

}  // namespace samepage::fingerprinter
