#include "fingerprinter/overlap.h"

#include <algorithm>
#include <array>
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
// jackknife"), since a formula would need every pair.

namespace samepage::fingerprinter {
namespace {

constexpr double kCells = Sketch::kBandCells;
constexpr double kZ95 = 1.96;

// Below this many empty cells a band knows next to nothing, and the delta method fails.
constexpr double kEmptyMin = kCells / 32;

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
  if (bands.empty()) return {0, 0, pages_max};
  double weights = 0;
  double pages = 0;
  for (const BandEstimate& band : bands) {
    weights += 1 / band.variance;
    pages += band.pages / band.variance;
  }
  pages = std::clamp(pages / weights, 0.0, pages_max);
  const double margin = kZ95 * std::sqrt(std::max(1 / weights - pages, 0.0));
  return {pages, std::max(pages - margin, 0.0), std::min(pages + margin, pages_max)};
}

/// The two bitmaps of one band: -ln of their shares of empty cells, and that of their OR.
struct PairBand {
  double share = 0;
  double load_a = 0;
  double load_b = 0;
  double load_or = 0;

  double pages() const { return kCells * (load_a + load_b - load_or) / share; }

  /// `common`: the pages in common, as far as known.
  double variance(double common) const {
    const double load_common = common * share / kCells;
    const double a = std::max(load_a, load_common);
    const double b = std::max(load_b, load_common);
    const double either = a + b - load_common;
    return variance_of(std::exp(either) - std::exp(a) - std::exp(b) + 2 * std::exp(load_common) - 1,
                       share);
  }
};

double load(double occupied) {
  return -std::log1p(-occupied / kCells);
}

std::vector<PairBand> compare(const Fingerprint& a, const Fingerprint& b) {
  std::vector<PairBand> bands;
  for (std::size_t i = 0; i < Sketch::kBands; ++i) {
    const auto either = static_cast<double>(count_cells(a.sketch().band(i), b.sketch().band(i)));
    if (either > kCells - kEmptyMin) continue;
    bands.push_back({Sketch::share(i), load(static_cast<double>(a.occupied(i))),
                     load(static_cast<double>(b.occupied(i))), load(either)});
  }
  return bands;
}

Estimate estimate_pair(std::span<const PairBand> bands, double common, double pages_max) {
  std::vector<BandEstimate> estimates;
  for (const PairBand& band : bands) {
    estimates.push_back({band.pages(), band.variance(common)});
  }
  return combine(estimates, pages_max);
}

/// The variance of one cell's influence on one band's estimate, over every 16th word.
double influence_variance(std::span<const Fingerprint> fingerprints, const Sketch::Band& all,
                          std::size_t index) {
  constexpr std::size_t kStep = 16;
  constexpr std::size_t kSampled = Sketch::kBandWords / kStep * 64;
  std::array<double, kSampled> influence{};
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
  for (std::size_t i = 0; i < Sketch::kBands; ++i) {
    const auto occupied = static_cast<double>(count_cells(all->band(i)));
    if (occupied > kCells - kEmptyMin) continue;
    double cells = -load(occupied);
    for (const Fingerprint& one : fingerprints) {
      cells += load(static_cast<double>(one.occupied(i)));
    }
    const double share = Sketch::share(i);
    bands.push_back({kCells * cells / share,
                     variance_of(influence_variance(fingerprints, all->band(i), i), share)});
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
  const auto pages_max = static_cast<double>(std::min(a.counts().unique, b.counts().unique));
  const std::vector<PairBand> bands = compare(a, b);
  const Estimate first = estimate_pair(bands, 0, pages_max);
  return estimate_pair(bands, first.pages, pages_max);
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
