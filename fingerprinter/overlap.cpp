#include "fingerprinter/overlap.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <optional>
#include <vector>

#include "fingerprinter/sketch_kernels.h"

// How the union of sets follows from their sketches
//
// One band: m cells, and of a set's hashes the share q falls into it. A cell stays empty with
// probability Z = exp(-n q / m) for a set of n hashes, so -m ln Z / q estimates n from the measured
// Z, and the same with the Z of the OR of all bitmaps estimates the union U (linear counting; Whang
// et al. 1990). For two sets, n1 + n2 - U = m (ln Z12 - ln Z1 - ln Z2) / q is what Memory Buddies'
// Eq. 1 says for k = 1, with the zero bits of the OR written as z1 + z2 - z12.
//
// But the sizes n are known exactly, each fingerprint counts them. The error of the estimated sum N
// of the sizes is therefore known too, and it is correlated with the error of U, since both come
// from the same sample. So U is corrected by regression:
//
//     U' = U - beta (N - known N),    beta = cov(U, N) / var(N),    variance (1 - r^2) var(U)
//
// beta = 1 would be Eq. 1 (its error grows with the number of copies: useless for 100 guests of
// one image), beta = 0 plain counting (useless for two guests that have little in common).
//
// Variances: by the delta method a cell adds -1/Z_or to U if it is empty in the OR, and -1/Z to N
// for each set in which it is empty. For two sets the moments of that have a closed form in n1, n2
// and the common c; for more they are measured over a part of the cells (the "infinitesimal
// jackknife"). They hold the noise of colliding cells and that of the sample. In nearly empty bands
// they are inversely proportional to q, and are taken from the fullest of these.
//
// All bands together: the mean weighted by the inverse variances. Each page is in one band at most,
// so the sampling errors of the bands cancel in part: a page in t sets adds 1 - beta t to U', and
// the sum of (1 - beta t)^2 over all pages comes off the variance. (With a single band of share p
// and beta = 1 that leaves the known sqrt(c (1-p)/p); with all pages in nearly empty bands,
// nothing.) For two sets that sum is known; for more, it is (U - beta N)^2 / U at least, and the
// copies that the cells of a sparse band have tell it better.

namespace samepage::fingerprinter {
namespace {

constexpr double kZ95 = 1.96;

// Below this share of empty cells a band knows next to nothing, and the delta method fails.
constexpr double kEmptyMin = 1.0 / 32;
// The delta method is good to about one page a band, which only shows in sets of a few thousand.
constexpr double kRoughness = Sketch::kBands;
// Bands emptier than this have few colliding cells, and too few set ones to measure a variance on.
constexpr double kSparse = 0.25;

/// Hashes a cell, of a band with so many occupied cells.
double load(std::size_t occupied, std::size_t cells) {
  return -std::log1p(-static_cast<double>(occupied) / static_cast<double>(cells));
}

bool is_full(std::size_t occupied, std::size_t cells) {
  return static_cast<double>(occupied) > static_cast<double>(cells) * (1 - kEmptyMin);
}

/// A fingerprint's sketch in a smaller shape: cut where it lies, or folded.
class Reduced {
 public:
  Reduced(const Fingerprint& whole, Sketch::Shape shape) : whole_(whole), shape_(shape) {
    if (whole.sketch().shape().resolution != shape.resolution) {
      folded_ = whole.sketch().reduced(shape);
    }
  }

  std::span<const std::uint64_t> band(std::size_t index) const {
    return (folded_ ? *folded_ : whole_.sketch()).band(index, shape_.cells);
  }
  std::size_t occupied(std::size_t band_index) const {
    if (whole_.sketch().shape() == shape_) return whole_.occupied(band_index);
    return count_set(band(band_index));
  }

 private:
  const Fingerprint& whole_;
  Sketch::Shape shape_;
  std::optional<Sketch> folded_;
};

/// What one band says of the union and of the sum of the sizes.
struct BandEstimate {
  double share = 0;
  double either = 0;
  double sum = 0;
};

/// Of one cell's influence on the two estimates, in units of 1 / share.
struct Moments {
  double either = 0;
  double covariance = 0;
  double sum = 0;

  double beta() const { return sum > 0 ? covariance / sum : 0; }

  /// Of a band's corrected estimate. At least one page of a band is always uncertain.
  double variance(double share, double cells) const {
    const double cell = either - beta() * covariance;
    return std::max(cell * cells, 1.0) / (share * share);
  }
};

/// The weighted mean over bands.
class Combiner {
 public:
  explicit Combiner(double sum_known) : sum_known_(sum_known) {}

  void add(const BandEstimate& band, double beta, double variance) {
    weights_ += 1 / variance;
    pages_ += (band.either - beta * (band.sum - sum_known_)) / variance;
    betas_ += beta / variance;
  }

  bool empty() const { return weights_ == 0; }
  double pages() const { return pages_ / weights_; }
  double beta() const { return betas_ / weights_; }

  /// `certain`: the sum of (1 - beta t)^2 over all pages.
  double variance(double certain) const {
    return std::max(1 / weights_ - certain, 0.0) + kRoughness;
  }

 private:
  double sum_known_;
  double weights_ = 0;
  double pages_ = 0;
  double betas_ = 0;
};

Estimate interval(double pages, double variance, double low, double high) {
  pages = std::clamp(pages, low, high);
  const double margin = kZ95 * std::sqrt(variance);
  return {pages, std::max(pages - margin, low), std::min(pages + margin, high)};
}

/// Two sets of known sizes.
struct Pair {
  double a = 0;
  double b = 0;
  double cells = 0;   ///< Of each band that is compared.
  double common = 0;  ///< As far as known.

  double sum() const { return a + b; }

  Moments moments(double share) const {
    const auto grown = [&](double pages) { return std::expm1(pages * share / cells); };
    const double sizes = grown(a) + grown(b);
    return {grown(a + b - common), sizes, sizes + 2 * grown(common)};
  }

  double certain(double beta) const {
    const double once = a + b - 2 * common;
    return once * (1 - beta) * (1 - beta) + common * (1 - 2 * beta) * (1 - 2 * beta);
  }

  Combiner combine(std::span<const BandEstimate> bands) const {
    Combiner combiner(sum());
    for (const BandEstimate& band : bands) {
      const Moments of_band = moments(band.share);
      combiner.add(band, of_band.beta(), of_band.variance(band.share, cells));
    }
    return combiner;
  }
};

std::vector<BandEstimate> compare(const Fingerprint& a, const Fingerprint& b, Sketch::Shape shape) {
  const Reduced left(a, shape);
  const Reduced right(b, shape);
  std::vector<BandEstimate> bands;
  bands.reserve(Sketch::kBands);
  for (std::size_t i = 0; i < Sketch::kBands; ++i) {
    const std::size_t in_a = left.occupied(i);
    const std::size_t in_b = right.occupied(i);
    if (is_full(std::max(in_a, in_b), shape.cells)) continue;
    const std::size_t either = in_a + in_b - count_common(left.band(i), right.band(i));
    if (is_full(either, shape.cells)) continue;
    const double scale = static_cast<double>(shape.cells) / shape.share(i);
    const double sum = load(in_a, shape.cells) + load(in_b, shape.cells);
    bands.push_back({shape.share(i), scale * load(either, shape.cells), scale * sum});
  }
  return bands;
}

/// The moments of one band, over a part of its words.
Moments measure(std::span<const Reduced> parts, const Sketch& all, std::size_t index) {
  constexpr std::size_t kWordsEnough = 128;
  const std::size_t cells = all.shape().cells;
  const std::size_t step = std::max<std::size_t>(cells / 64 / kWordsEnough, 1);
  const std::size_t sampled = cells / 64 / step * 64;
  std::vector<double> sum(sampled);
  std::vector<double> either(sampled);
  const auto add = [&](std::span<const std::uint64_t> band, std::size_t set,
                       std::vector<double>& to) {
    const double weight = static_cast<double>(cells) / static_cast<double>(cells - set);
    for (std::size_t cell = 0; cell < sampled; ++cell) {
      to[cell] += (band[cell / 64 * step] >> (cell % 64) & 1U) == 0 ? weight : 0;
    }
  };
  add(all.band(index), count_set(all.band(index)), either);
  for (const Reduced& part : parts) add(part.band(index), part.occupied(index), sum);

  const auto count = static_cast<double>(sampled);
  const double either_mean = std::accumulate(either.begin(), either.end(), 0.0) / count;
  const double sum_mean = std::accumulate(sum.begin(), sum.end(), 0.0) / count;
  Moments moments;
  for (std::size_t cell = 0; cell < sampled; ++cell) {
    const double either_off = either[cell] - either_mean;
    const double sum_off = sum[cell] - sum_mean;
    moments.either += either_off * either_off / (count - 1);
    moments.covariance += either_off * sum_off / (count - 1);
    moments.sum += sum_off * sum_off / (count - 1);
  }
  return moments;
}

/// In how many sets a page of the union is: the mean and the mean square over the occupied cells of
/// a band so sparse that few cells have two pages.
struct Multiplicity {
  double mean = 0;
  double square = 0;

  /// The mean of (1 - beta t)^2; 0 while nothing is known.
  double certain(double beta) const {
    return mean > 0 ? 1 - 2 * beta * mean + beta * beta * square : 0;
  }
};

Multiplicity count_copies(std::span<const Reduced> parts, const Sketch& all, std::size_t index) {
  Multiplicity found;
  double occupied = 0;
  const auto band = all.band(index);
  for (std::size_t at = 0; at < band.size(); ++at) {
    for (std::uint64_t word = band[at]; word != 0; word &= word - 1) {
      const std::uint64_t cell = word & -word;
      double copies = 0;
      for (const Reduced& part : parts) copies += (part.band(index)[at] & cell) != 0 ? 1 : 0;
      found.mean += copies;
      found.square += copies * copies;
      ++occupied;
    }
  }
  if (occupied == 0) return {};
  return {found.mean / occupied, found.square / occupied};
}

struct Union {
  Combiner combined;
  Multiplicity copies;
};

Union combine_many(std::span<const Fingerprint> fingerprints, double sum_known) {
  Sketch all = fingerprints.front().sketch();
  for (const Fingerprint& one : fingerprints.subspan(1)) all.merge(one.sketch());
  const std::size_t cells = all.shape().cells;
  std::vector<Reduced> parts;
  parts.reserve(fingerprints.size());
  for (const Fingerprint& one : fingerprints) parts.emplace_back(one, all.shape());

  Union found{Combiner(sum_known), {}};
  double sparse_variance = 0;  // Times the share: the same for all sparse bands.
  double beta = 0;
  for (std::size_t i = 0; i < Sketch::kBands; ++i) {
    const std::size_t either = count_set(all.band(i));
    if (is_full(either, cells)) continue;
    const double share = all.shape().share(i);
    double sum = 0;
    for (const Reduced& part : parts) sum += load(part.occupied(i), cells);

    double variance = sparse_variance / share;
    if (sparse_variance == 0) {
      const Moments moments = measure(parts, all, i);
      beta = moments.beta();
      variance = moments.variance(share, static_cast<double>(cells));
      if (static_cast<double>(either) < kSparse * static_cast<double>(cells)) {
        sparse_variance = variance * share;
        found.copies = count_copies(parts, all, i);
      }
    }
    const double scale = static_cast<double>(cells) / share;
    found.combined.add({share, scale * load(either, cells), scale * sum}, beta,
                       std::max(variance, 1 / (share * share)));
  }
  return found;
}

}  // namespace

Estimate overlap(const Fingerprint& a, const Fingerprint& b) {
  const Sketch::Shape shape = Sketch::common(a.sketch().shape(), b.sketch().shape());
  Pair pair{static_cast<double>(a.counts().unique), static_cast<double>(b.counts().unique),
            static_cast<double>(shape.cells)};
  const double common_max = std::min(pair.a, pair.b);
  const std::vector<BandEstimate> bands = compare(a, b, shape);
  if (bands.empty() || common_max == 0) return {0, 0, common_max};

  // The weights and beta depend on the result; the second round has them nearly right.
  for (int round = 0; round < 2; ++round) {
    pair.common = std::clamp(pair.sum() - pair.combine(bands).pages(), 0.0, common_max);
  }
  const Combiner combined = pair.combine(bands);
  return interval(pair.sum() - combined.pages(), combined.variance(pair.certain(combined.beta())),
                  0, common_max);
}

Estimate footprint(std::span<const Fingerprint> fingerprints) {
  double sum = 0;
  double largest = 0;
  for (const Fingerprint& one : fingerprints) {
    const auto unique = static_cast<double>(one.counts().unique);
    sum += unique;
    largest = std::max(largest, unique);
  }
  if (fingerprints.size() < 2 || sum == largest) return {sum, sum, sum};
  if (fingerprints.size() == 2) {
    const Estimate common = overlap(fingerprints[0], fingerprints[1]);
    return {sum - common.pages, sum - common.high, sum - common.low};
  }
  const auto [combined, copies] = combine_many(fingerprints, sum);
  if (combined.empty()) return {sum, largest, sum};
  const double excess = combined.pages() - combined.beta() * sum;
  const double certain = std::max(excess * excess / std::max(combined.pages(), 1.0),
                                  combined.pages() * copies.certain(combined.beta()));
  return interval(combined.pages(), combined.variance(certain), largest, sum);
}

Sharing sharing(std::span<const Fingerprint> fingerprints) {
  Sharing sharing;
  double sum = 0;
  for (const Fingerprint& one : fingerprints) {
    sharing.zero += one.counts().zero;
    sharing.within += one.counts().duplicate;
    sum += static_cast<double>(one.counts().unique);
  }
  if (sharing.zero > 0) --sharing.zero;
  const Estimate distinct = footprint(fingerprints);
  sharing.between = {sum - distinct.pages, sum - distinct.high, sum - distinct.low};
  return sharing;
}

}  // namespace samepage::fingerprinter
