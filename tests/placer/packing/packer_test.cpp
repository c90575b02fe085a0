// The promise under test: a packing keeps every limit and rule, is never worse than what it started
// from or than the one-pass heuristics, repeats for a seed, and finds optima that are known. Judged
// by find_fault(), which shares no code with the search.

#include "placer/packing/packer.h"

#include <gtest/gtest.h>

#include "placer/packing/bound.h"
#include "tests/placer/packing/random_problem.h"

namespace samepage::placer {
namespace {

using namespace std::chrono_literals;

const PackOptions kShort{.budget = 10s, .rounds_max = 2'000};

PackItem item_of(std::initializer_list<std::size_t> cells) {
  PackItem item;
  item.cells.resize(2);
  for (const std::size_t cell : cells) item.cells[cell / 64] |= std::uint64_t{1} << (cell % 64);
  return item;
}

PackProblem problem_of(std::vector<PackItem> items, double capacity) {
  PackProblem problem;
  problem.words = 2;
  problem.pages_of_cells = PackProblem::linear(2, 1);
  problem.bins.assign(items.size(), {.capacity = capacity, .loads = {1, 1, 1}});
  problem.items = std::move(items);
  return problem;
}

TEST(Packer, PutsOverlappingItemsTogether) {
  const PackProblem problem = problem_of(
      {item_of({0, 1, 2}), item_of({64, 65, 66}), item_of({0, 1, 3}), item_of({64, 65, 67})}, 4);

  const Packing packing = pack(problem, kShort);

  EXPECT_EQ(find_fault(problem, packing), "");
  EXPECT_EQ(packing.bins_used, 2U);
  EXPECT_EQ(packing.bin_of[0], packing.bin_of[2]);
  EXPECT_EQ(packing.bin_of[1], packing.bin_of[3]);
}

TEST(Packer, KeepsEveryLimitOnRandomProblems) {
  for (std::uint64_t seed = 1; seed <= 20; ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    PackProblem problem = random_problem(
        {.items = 40, .words = 1 + seed % 10, .own_max = 8, .load_max = 2, .seed = seed});
    for (std::size_t i = 0; i < 6; ++i) problem.items[i].apart = {1};
    problem.items[7].allowed.assign(40, false);
    problem.items[7].allowed[3] = true;

    const Packing packing = pack(problem, {.budget = 10s, .rounds_max = 500, .seed = seed});

    EXPECT_EQ(find_fault(problem, packing), "");
    EXPECT_EQ(packing.left_out, 0U);
    EXPECT_GE(packing.bins_used, bins_bound(problem));
  }
}

TEST(Packer, IsNeverWorseThanOnePass) {
  for (std::uint64_t seed = 1; seed <= 20; ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    const PackProblem problem = random_problem({.items = 60, .seed = seed});

    const Packing packing = pack(problem, kShort);

    for (const Heuristic heuristic : {Heuristic::kFirstFit, Heuristic::kBestFitBySize,
                                      Heuristic::kBestFusion, Heuristic::kMemoryBuddies}) {
      const Packing simple = pack_by(heuristic, problem);
      EXPECT_EQ(find_fault(problem, simple), "");
      EXPECT_LE(packing.bins_used, simple.bins_used);
    }
  }
}

TEST(Packer, RepeatsForASeed) {
  const PackProblem problem = random_problem({.items = 60, .own_max = 5, .seed = 4});

  const PackOptions options{.budget = 10s, .rounds_max = 1'000, .seed = 7, .threads = 1};

  EXPECT_EQ(pack(problem, options).bin_of, pack(problem, options).bin_of);
}

TEST(Packer, IsNeverWorseThanItsStart) {
  const PackProblem problem = random_problem({.items = 50, .seed = 9});
  const Packing start = pack(problem, kShort);

  const Packing again =
      pack(problem, {.budget = 10s, .rounds_max = 10, .seed = 3, .threads = 2}, &start);

  EXPECT_EQ(find_fault(problem, again), "");
  EXPECT_LE(again.bins_used, start.bins_used);
}

TEST(Packer, LeavesOutWhatFitsNowhere) {
  PackProblem problem = problem_of({item_of({0, 1}), item_of({0, 1, 2, 3, 4})}, 3);
  problem.bins.resize(1);

  const Packing packing = pack(problem, kShort);

  EXPECT_EQ(find_fault(problem, packing), "");
  EXPECT_EQ(packing.left_out, 1U);
  EXPECT_EQ(packing.bin_of[1], kNowhere);
}

TEST(Packer, MakesRoomWhereConstructionLeftItemsOut) {
  // Only 0 + 3 and 1 + 2 fill two bins of 6.
  PackProblem problem = problem_of(
      {item_of({0, 1, 2, 3}), item_of({4, 5, 6}), item_of({7, 8, 9}), item_of({10, 11})}, 6);
  problem.bins.resize(2);

  const Packing packing = pack(problem, kShort);

  EXPECT_EQ(find_fault(problem, packing), "");
  EXPECT_EQ(packing.left_out, 0U);
}

TEST(Packer, FillsBinsOfDifferentSizes) {
  PackProblem problem = problem_of({item_of({0, 1, 2, 3}), item_of({4}), item_of({5})}, 1);
  problem.bins[2].capacity = 4;

  const Packing packing = pack(problem, kShort);

  EXPECT_EQ(find_fault(problem, packing), "");
  EXPECT_EQ(packing.left_out, 0U);
  EXPECT_EQ(packing.bin_of[0], 2U);
}

TEST(Bound, CountsUnionsOwnPagesAndConflicts) {
  EXPECT_EQ(bins_bound(problem_of({item_of({0, 1, 2, 3}), item_of({4, 5, 6, 7})}, 4)), 2U);

  PackProblem own = problem_of({item_of({0}), item_of({0}), item_of({0})}, 4);
  for (PackItem& item : own.items) item.own = 2;
  EXPECT_EQ(bins_bound(own), 3U);

  PackProblem apart = problem_of({item_of({0}), item_of({0}), item_of({0})}, 4);
  for (PackItem& item : apart.items) item.apart = {5};
  EXPECT_EQ(bins_bound(apart), 3U);
}

TEST(Bound, IsBelowEveryPackingFound) {
  for (std::uint64_t seed = 1; seed <= 50; ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    const PackProblem problem =
        random_problem({.items = 12, .capacity = 30, .own_max = 10, .load_max = 2, .seed = seed});

    EXPECT_LE(bins_bound(problem), pack(problem, kShort).bins_used);
  }
}

TEST(FindFault, SeesEachBrokenPromise) {
  PackProblem problem = problem_of({item_of({0, 1}), item_of({2, 3})}, 3);
  const auto fault = [&](Packing packing) { return find_fault(problem, packing); };

  EXPECT_EQ(fault({.bin_of = {0, 1}, .bins_used = 2}), "");
  EXPECT_NE(fault({.bin_of = {0, 0}, .bins_used = 1}), "");
  EXPECT_NE(fault({.bin_of = {0}, .bins_used = 1}), "");
  EXPECT_NE(fault({.bin_of = {0, 9}, .bins_used = 2}), "");
  EXPECT_NE(fault({.bin_of = {0, 1}, .bins_used = 1}), "");
  EXPECT_NE(fault({.bin_of = {0, kNowhere}, .bins_used = 1}), "");
  problem.bins.assign(2, {.capacity = 9, .loads = {1, 1, 1}});
  problem.items[0].apart = problem.items[1].apart = {3};
  EXPECT_NE(fault({.bin_of = {0, 0}, .bins_used = 1}), "");
  problem.items[0].apart.clear();
  problem.items[0].loads = problem.items[1].loads = {0.6, 0, 0};
  EXPECT_NE(fault({.bin_of = {0, 0}, .bins_used = 1}), "");
  problem.items[0].allowed = {false, true};
  EXPECT_NE(fault({.bin_of = {0, 1}, .bins_used = 2}), "");
}

}  // namespace
}  // namespace samepage::placer
