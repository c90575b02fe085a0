#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "placer/packing/problem.h"

namespace samepage::placer {

/// Pages that many VMs have: an operating system's, an application's. Written-down fleets (scenario
/// files, benchmarks, tests) say how many pages of which pool a VM has; this gives every pool cells
/// of its own, so that what is shared is exact. Two VMs with 600 and 400 pages of one pool have 400
/// in common.
///
/// Invariant: pools do not collide while there are cells left; after that they wrap around.
/// Threads: none of its own.
class PagePools {
 public:
  PagePools(std::size_t words, double pages_per_cell)
      : words_(words), pages_per_cell_(pages_per_cell) {}

  /// Adds the first `pages` pages of a pool to an item; what is less than a cell becomes its own.
  void add(std::string_view pool, double pages, PackItem& item) {
    item.cells.resize(words_);
    const auto found = pools_.try_emplace(std::string(pool)).first;
    std::vector<std::size_t>& cells = found->second;
    const auto wanted = static_cast<std::size_t>(pages / pages_per_cell_);
    while (cells.size() < wanted) cells.push_back(next_++ % (words_ * 64));
    for (std::size_t i = 0; i < wanted; ++i) {
      item.cells[cells[i] / 64] |= std::uint64_t{1} << (cells[i] % 64);
    }
    item.own += pages - static_cast<double>(wanted) * pages_per_cell_;
  }

  std::vector<double> pages_of_cells() const {
    return PackProblem::linear(words_, pages_per_cell_);
  }
  std::size_t words() const { return words_; }
  bool has_wrapped() const { return next_ > words_ * 64; }

 private:
  std::size_t words_;
  double pages_per_cell_;
  std::size_t next_ = 0;
  std::map<std::string, std::vector<std::size_t>, std::less<>> pools_;
};

}  // namespace samepage::placer
