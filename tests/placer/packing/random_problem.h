#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "placer/packing/problem.h"
#include "placer/packing/random.h"

namespace samepage::placer {

/// Items of random cells, as many bins as items.
struct RandomProblem {
  std::size_t items = 30;
  std::size_t words = 2;
  std::size_t cells_max = 20;  ///< Of an item.
  double capacity = 40;
  double own_max = 0;
  double load_max = 0;
  std::uint64_t seed = 1;
};

inline PackProblem random_problem(const RandomProblem& shape) {
  Random random(shape.seed);
  PackProblem problem;
  problem.words = shape.words;
  problem.pages_of_cells = PackProblem::linear(shape.words, 1);
  problem.bins.assign(shape.items, {.capacity = shape.capacity, .loads = {4, 4, 4}});
  for (std::size_t i = 0; i < shape.items; ++i) {
    PackItem item;
    item.cells.resize(shape.words);
    const std::size_t cells = 1 + random.below(shape.cells_max);
    for (std::size_t c = 0; c < cells; ++c) {
      const std::size_t cell = random.below(shape.words * 64);
      item.cells[cell / 64] |= std::uint64_t{1} << (cell % 64);
    }
    item.own = shape.own_max * random.unit();
    for (double& load : item.loads) load = shape.load_max * random.unit();
    problem.items.push_back(item);
  }
  return problem;
}

}  // namespace samepage::placer
