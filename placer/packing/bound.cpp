#include "placer/packing/bound.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <numeric>
#include <vector>

namespace samepage::placer {
namespace {

constexpr double kRounding = 1e-6;
constexpr std::size_t kCliqueItemsMax = 5'000;

std::size_t whole(double bins) {
  return static_cast<std::size_t>(std::ceil(std::max(0.0, bins - kRounding)));
}

std::size_t count(const std::vector<std::uint64_t>& cells) {
  std::size_t sum = 0;
  for (const std::uint64_t word : cells) sum += static_cast<std::size_t>(std::popcount(word));
  return sum;
}

struct Largest {
  double capacity = 0;
  Loads loads{};
};

Largest largest_bin(const PackProblem& problem) {
  Largest largest;
  for (const PackBin& bin : problem.bins) {
    largest.capacity = std::max(largest.capacity, bin.capacity);
    for (std::size_t i = 0; i < kLoads; ++i) {
      largest.loads.at(i) = std::max(largest.loads.at(i), bin.loads.at(i));
    }
  }
  return largest;
}

/// What one item needs of a bin, in parts of it: its own pages over what is left beside its cells.
/// What a bin has left beside all its cells is at most what is left beside any one item's, so these
/// parts add up to at most one in a bin.
double part_of_bin(const PackItem& item, double cell_pages, double capacity) {
  const double beside = capacity - cell_pages;
  return beside > item.own ? item.own / beside : 1;
}

/// What must be known of the items that have one cell.
struct Holders {
  std::size_t count = 0;
  double parts = 0;
};

// Where pages collide in cells, pages rise faster than cells do: the first cell's pages are the
// least that any cell stands for.
double volume_bound(const PackProblem& problem, double capacity) {
  std::vector<Holders> holders(problem.words * 64);
  double pages = 0;
  for (const PackItem& item : problem.items) {
    pages += item.own;
    const double part = part_of_bin(item, problem.pages_of_cells.at(count(item.cells)), capacity);
    for (std::size_t w = 0; w < problem.words; ++w) {
      for (std::uint64_t rest = item.cells[w]; rest != 0; rest &= rest - 1) {
        Holders& of_cell = holders[w * 64 + static_cast<std::size_t>(std::countr_zero(rest))];
        ++of_cell.count;
        of_cell.parts += part;
      }
    }
  }
  const double unit = problem.pages_of_cells.at(1);
  for (const Holders& of_cell : holders) {
    if (of_cell.count > 0)
      pages += unit * static_cast<double>(std::max<std::size_t>(1, whole(of_cell.parts)));
  }
  return capacity > 0 ? pages / capacity : 0;
}

double loads_bound(const PackProblem& problem, const Loads& largest) {
  double bins = 0;
  for (std::size_t i = 0; i < kLoads; ++i) {
    double sum = 0;
    for (const PackItem& item : problem.items) sum += item.loads.at(i);
    if (largest.at(i) > 0) bins = std::max(bins, sum / largest.at(i));
  }
  return bins;
}

bool are_apart(const PackItem& a, const PackItem& b) {
  return std::any_of(a.apart.begin(), a.apart.end(), [&](std::uint32_t group) {
    return std::find(b.apart.begin(), b.apart.end(), group) != b.apart.end();
  });
}

bool fit_together(const PackProblem& problem, const PackItem& a, const PackItem& b,
                  const Largest& largest) {
  if (are_apart(a, b)) return false;
  std::size_t cells = 0;
  for (std::size_t w = 0; w < problem.words; ++w) {
    cells += static_cast<std::size_t>(std::popcount(a.cells[w] | b.cells[w]));
  }
  if (problem.pages_of_cells.at(cells) + a.own + b.own > largest.capacity) return false;
  for (std::size_t i = 0; i < kLoads; ++i) {
    if (a.loads.at(i) + b.loads.at(i) > largest.loads.at(i)) return false;
  }
  return true;
}

std::size_t clique_bound(const PackProblem& problem, const Largest& largest) {
  if (problem.items.size() > kCliqueItemsMax) return 0;
  std::vector<std::size_t> order(problem.items.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::vector<double> size;
  for (const PackItem& item : problem.items) {
    size.push_back(item.own + problem.pages_of_cells.at(count(item.cells)));
  }
  std::stable_sort(order.begin(), order.end(),
                   [&](std::size_t a, std::size_t b) { return size[a] > size[b]; });
  std::vector<std::size_t> clique;
  for (const std::size_t candidate : order) {
    const bool fits_none = std::none_of(clique.begin(), clique.end(), [&](std::size_t member) {
      return fit_together(problem, problem.items[candidate], problem.items[member], largest);
    });
    if (fits_none) clique.push_back(candidate);
  }
  return clique.size();
}

}  // namespace

std::size_t bins_bound(const PackProblem& problem) {
  if (problem.items.empty()) return 0;
  const Largest largest = largest_bin(problem);
  return std::max({std::size_t{1}, whole(volume_bound(problem, largest.capacity)),
                   whole(loads_bound(problem, largest.loads)), clique_bound(problem, largest)});
}

}  // namespace samepage::placer
