// The promises under test: a fleet too large for one search is packed with every limit kept and
// close to the bound; counts of the sharing index are exact; renumbering bins moves fewer items and
// breaks nothing.

#include "placer/packing/fleet_packer.h"

#include <bit>

#include <gtest/gtest.h>

#include "placer/packing/bound.h"
#include "placer/packing/least_movement.h"
#include "placer/packing/page_pools.h"
#include "placer/packing/random.h"
#include "placer/packing/sharing_index.h"
#include "tests/placer/packing/random_problem.h"

namespace samepage::placer {
namespace {

using namespace std::chrono_literals;

// Families of VMs, each with pages in common, on hosts that take about a dozen.
PackProblem families(std::size_t items, std::uint64_t seed) {
  Random random(seed);
  PagePools pools(64, 16);
  PackProblem problem;
  problem.words = pools.words();
  problem.pages_of_cells = pools.pages_of_cells();
  problem.bins.assign(items / 4, {.capacity = 10'000, .loads = {32, 10, 10}});
  for (std::size_t i = 0; i < items; ++i) {
    PackItem item;
    pools.add("family" + std::to_string(random.below(12)), 400 + 200 * random.unit(), item);
    item.own += 300 + 600 * random.unit();
    item.loads = {1, 0, 0};
    problem.items.push_back(item);
  }
  return problem;
}

TEST(FleetPacker, PacksLargeFleetsCloseToTheBound) {
  const PackProblem problem = families(1'500, 3);
  const std::size_t bound = bins_bound(problem);

  const Packing packing =
      pack_fleet(problem, {.budget = 20s, .rounds_max = 20, .threads = 2, .bins_enough = bound});

  EXPECT_EQ(find_fault(problem, packing), "");
  EXPECT_EQ(packing.left_out, 0U);
  EXPECT_GE(packing.bins_used, bound);
  EXPECT_LE(static_cast<double>(packing.bins_used), 1.15 * static_cast<double>(bound));
}

TEST(FleetPacker, ImprovesWhatItStartsFrom) {
  const PackProblem problem = families(900, 4);
  const Packing start = pack_by(Heuristic::kBestFitBySize, problem);
  ASSERT_EQ(find_fault(problem, start), "");

  const Packing packing = pack_fleet(problem, {.budget = 20s, .rounds_max = 10}, &start);

  EXPECT_EQ(find_fault(problem, packing), "");
  EXPECT_LE(packing.bins_used, start.bins_used);
}

TEST(FleetPacker, HonoursGroupsAndTiesInLargeFleets) {
  PackProblem problem = families(800, 5);
  for (std::size_t i = 0; i < 100; ++i) problem.items[i].apart = {7};
  problem.items[200].allowed.assign(problem.bins.size(), false);
  problem.items[200].allowed[11] = true;

  const Packing packing = pack_fleet(problem, {.budget = 20s, .rounds_max = 5, .threads = 2});

  EXPECT_EQ(find_fault(problem, packing), "");
  EXPECT_EQ(packing.left_out, 0U);
  EXPECT_EQ(packing.bin_of[200], 11U);
}

TEST(SharingIndex, CountsWhatEachBinHasInCommon) {
  constexpr std::size_t kWords = 8;
  constexpr std::size_t kBins = 700;
  Random random(11);
  SharingIndex index(kWords, kBins);
  std::vector<std::vector<std::uint64_t>> bins(kBins);
  for (int round = 0; round < 2; ++round) {  // The second replaces the first.
    for (std::size_t bin = 0; bin < kBins; ++bin) {
      bins[bin].clear();
      for (std::size_t w = 0; w < kWords; ++w) bins[bin].push_back(random.next() & random.next());
      index.set(bin, bins[bin]);
    }
  }
  for (int query = 0; query < 20; ++query) {
    std::vector<std::uint64_t> cells(kWords);
    for (std::uint64_t& word : cells) word = random.next() & random.next();
    std::vector<std::uint16_t> counts;

    index.count_common(cells, counts);

    ASSERT_EQ(counts.size(), kBins);
    for (std::size_t bin = 0; bin < kBins; ++bin) {
      int expected = 0;
      for (std::size_t w = 0; w < kWords; ++w) expected += std::popcount(cells[w] & bins[bin][w]);
      ASSERT_EQ(counts[bin], expected) << "bin " << bin;
    }
  }
}

TEST(LeastMovement, KeepsItemsWhereTheyWere) {
  const PackProblem problem = random_problem({.items = 40, .seed = 2});
  Packing packing = pack(problem, {.budget = 10s, .rounds_max = 200});
  std::vector<std::uint32_t> before = packing.bin_of;
  for (std::uint32_t& bin : before) bin = (bin + 5) % 40;  // The same packing by other numbers.

  const std::size_t moves = match_bins(problem, before, packing);

  EXPECT_EQ(moves, 0U);
  EXPECT_EQ(packing.bin_of, before);
  EXPECT_EQ(find_fault(problem, packing), "");
}

TEST(LeastMovement, LeavesTiedItemsAndOddBinsAlone) {
  PackProblem problem = random_problem({.items = 30, .seed = 6});
  problem.bins[4].capacity = 60;
  problem.items[0].allowed.assign(30, false);
  problem.items[0].allowed[9] = true;
  Packing packing = pack(problem, {.budget = 10s, .rounds_max = 200});
  ASSERT_EQ(find_fault(problem, packing), "");
  std::vector<std::uint32_t> before(30);
  for (std::uint32_t i = 0; i < 30; ++i) before[i] = i;

  match_bins(problem, before, packing);

  EXPECT_EQ(find_fault(problem, packing), "");
}

}  // namespace
}  // namespace samepage::placer
