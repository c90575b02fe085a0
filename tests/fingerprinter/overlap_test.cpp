// The promise under test: estimates are as near to the exact sets as sketch.h says, and their
// intervals hold the truth about 95 times in 100: neither less often nor always. Seeds are fixed,
// so a failure is a change of the estimator and no bad luck.

#include "fingerprinter/overlap.h"

#include <cmath>
#include <functional>

#include <gtest/gtest.h>

#include "tests/fingerprinter/page_sets.h"

namespace samepage::fingerprinter {
namespace {

struct Accuracy {
  double error = 0;     ///< Root of the mean square error, in pages.
  double bias = 0;      ///< Mean error.
  double coverage = 0;  ///< Share of the intervals that hold the truth.
  double width = 0;     ///< Mean half interval.
};

Accuracy measure(int trials, double truth, const std::function<Estimate()>& estimate) {
  Accuracy found;
  for (int i = 0; i < trials; ++i) {
    const Estimate one = estimate();
    const double error = one.pages - truth;
    found.error += error * error / trials;
    found.bias += error / trials;
    found.coverage += (one.low <= truth && truth <= one.high ? 1.0 : 0.0) / trials;
    found.width += (one.high - one.low) / 2 / trials;
  }
  found.error = std::sqrt(found.error);
  return found;
}

struct Pair {
  std::size_t a;
  std::size_t b;
  double common;     ///< Share of the smaller.
  double error_max;  ///< Root mean square, share of the smaller.
};

std::ostream& operator<<(std::ostream& out, const Pair& pair) {
  return out << pair.a << " and " << pair.b << " pages, common " << pair.common;
}

class OverlapTest : public ::testing::TestWithParam<Pair> {};

TEST_P(OverlapTest, ErrorAndIntervalKeepTheirPromise) {
  constexpr int kTrials = 120;
  const Pair pair = GetParam();
  const auto smaller = static_cast<double>(std::min(pair.a, pair.b));
  const auto common = static_cast<std::size_t>(smaller * pair.common);
  std::mt19937_64 random(42);

  const Accuracy found = measure(kTrials, static_cast<double>(common), [&] {
    const Hashes both = random_hashes(common, random);
    const Hashes only_a = random_hashes(pair.a - common, random);
    const Hashes only_b = random_hashes(pair.b - common, random);
    return overlap(guest_of({&both, &only_a}), guest_of({&both, &only_b}));
  });

  EXPECT_LT(found.error / smaller, pair.error_max);
  EXPECT_GT(found.error / smaller, pair.error_max / 2);  // Else the limit says nothing.
  EXPECT_LT(std::abs(found.bias), 0.3 * found.error);
  EXPECT_GE(found.coverage, 0.90);
  EXPECT_LE(found.coverage, 0.995);
  EXPECT_NEAR(found.width, 1.96 * found.error, 0.2 * 1.96 * found.error);
}

INSTANTIATE_TEST_SUITE_P(Sizes, OverlapTest,
                         ::testing::Values(Pair{1 << 12, 1 << 12, 0.37, 0.0030},
                                           Pair{1 << 14, 1 << 14, 0.1, 0.0032},
                                           Pair{1 << 14, 1 << 14, 0.8, 0.0014},
                                           Pair{1 << 15, 1 << 15, 0.1, 0.0032},
                                           Pair{1 << 12, 1 << 15, 0.37, 0.0085}));

TEST(OverlapEdgeTest, DisjointGuestsShareAboutNothingAndTheIntervalSaysSo) {
  std::mt19937_64 random(5);
  const Accuracy found = measure(60, 0, [&] {
    const Hashes a = random_hashes(1 << 15, random);
    const Hashes b = random_hashes(1 << 15, random);
    return overlap(guest_of({&a}), guest_of({&b}));
  });
  EXPECT_LT(found.error, 0.004 * (1 << 15));
  EXPECT_GE(found.coverage, 0.90);
}

TEST(OverlapEdgeTest, AGuestSharesEverythingWithItself) {
  std::mt19937_64 random(6);
  const Hashes hashes = random_hashes(100'000, random);
  const Fingerprint guest = guest_of({&hashes});
  const Estimate found = overlap(guest, guest);
  EXPECT_NEAR(found.pages, 100'000, 500);
  EXPECT_EQ(found.high, 100'000);
}

TEST(OverlapEdgeTest, EmptyGuestsShareNothing) {
  const Fingerprint empty = guest_of({});
  const Hashes none;
  std::mt19937_64 random(7);
  const Hashes some = random_hashes(1000, random);
  EXPECT_EQ(overlap(empty, empty).high, 0);
  EXPECT_EQ(overlap(empty, guest_of({&some})).high, 0);
  EXPECT_EQ(footprint({}).pages, 0);
}

TEST(OverlapEdgeTest, SketchesTooFullToSayAnythingGiveTheWidestInterval) {
  Hashes all;
  for (std::size_t band = 0; band < Sketch::kBands; ++band) {
    for (std::uint64_t cell = 0; cell < (1U << 16U); ++cell) {
      all.push_back({std::uint64_t{1} << (63U - band) | cell << 2U});
    }
  }
  const std::vector<Fingerprint> guests(3, guest_of({&all}));
  const auto unique = static_cast<double>(all.size());
  EXPECT_EQ(overlap(guests[0], guests[1]).low, 0);
  EXPECT_EQ(overlap(guests[0], guests[1]).high, unique);
  EXPECT_EQ(footprint(guests).low, unique);
  EXPECT_EQ(footprint(guests).high, 3 * unique);
}

/// Six guests: 8,000 pages in all of them, 4,000 in each of two halves, the rest their own.
std::vector<Fingerprint> six_guests(std::mt19937_64& random) {
  const Hashes all = random_hashes(8'000, random);
  const std::array halves = {random_hashes(4'000, random), random_hashes(4'000, random)};
  std::vector<Fingerprint> guests;
  for (std::size_t i = 0; i < 6; ++i) {
    const Hashes own = random_hashes(6'000 + 3'000 * i, random);
    guests.push_back(guest_of({&all, &halves[i % 2], &own}));
  }
  return guests;
}
constexpr double kSixUnion = 8'000 + 2 * 4'000 + 6 * 6'000 + 15 * 3'000;

/// Twenty guests of one image with a few pages of their own.
std::vector<Fingerprint> twenty_clones(std::mt19937_64& random) {
  const Hashes all = random_hashes(5'000, random);
  std::vector<Fingerprint> guests;
  for (int i = 0; i < 20; ++i) {
    const Hashes own = random_hashes(2'000, random);
    guests.push_back(guest_of({&all, &own}));
  }
  return guests;
}
constexpr double kCloneUnion = 5'000 + 20 * 2'000;

TEST(FootprintTest, ErrorAndIntervalKeepTheirPromise) {
  struct Case {
    std::vector<Fingerprint> (*guests)(std::mt19937_64&);
    double truth;
  };
  for (const auto& [guests, truth] :
       {Case{six_guests, kSixUnion}, Case{twenty_clones, kCloneUnion}}) {
    SCOPED_TRACE(truth);
    std::mt19937_64 random(8);
    const Accuracy found =
        measure(100, truth, [&, make = guests] { return footprint(make(random)); });

    EXPECT_LT(found.error / truth, 0.0035);
    EXPECT_GT(found.error / truth, 0.001);
    EXPECT_LT(std::abs(found.bias), 0.3 * found.error);
    EXPECT_GE(found.coverage, 0.90);
    EXPECT_LT(found.width, 1.3 * 1.96 * found.error);
  }
}

TEST(FootprintTest, OfTwoIsWhatTheirOverlapLeaves) {
  std::mt19937_64 random(9);
  const Hashes both = random_hashes(10'000, random);
  const Hashes own = random_hashes(10'000, random);
  const std::vector<Fingerprint> guests = {guest_of({&both, &own}), guest_of({&both})};
  EXPECT_DOUBLE_EQ(footprint(guests).pages, 30'000 - overlap(guests[0], guests[1]).pages);
}

TEST(SharingTest, SplitsWhatMergingSaves) {
  std::mt19937_64 random(10);
  const Hashes both = random_hashes(10'000, random);
  const Hashes own = random_hashes(500, random);
  const std::vector<Fingerprint> guests = {guest_of({&both, &own, &own}, 30),
                                           guest_of({&both}, 12)};

  const Sharing found = sharing(guests);

  EXPECT_EQ(found.zero, 41U);
  EXPECT_EQ(found.within, 500U);
  EXPECT_NEAR(found.between.pages, 10'000, 150);
  EXPECT_DOUBLE_EQ(found.total().pages, found.between.pages + 541);
  EXPECT_DOUBLE_EQ(found.total().low, found.between.low + 541);
}

TEST(SharingTest, OfASingleGuestIsExact) {
  std::mt19937_64 random(11);
  const Hashes own = random_hashes(500, random);
  const std::vector<Fingerprint> guests = {guest_of({&own, &own}, 1)};
  EXPECT_EQ(sharing(guests).total().pages, 500);
  EXPECT_EQ(sharing(guests).total().high, 500);
  EXPECT_EQ(sharing({}).total().high, 0);
}

}  // namespace
}  // namespace samepage::fingerprinter
