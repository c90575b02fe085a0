#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

namespace samepage::placer {

/// Resources that add up, beside memory, which does not: CPU, network, disk.
inline constexpr std::size_t kLoads = 3;
using Loads = std::array<double, kLoads>;

/// The widest bitmap of an item: 32,768 cells.
inline constexpr std::size_t kPackWordsMax = 512;

/// Where an item is while it is in no bin.
inline constexpr std::uint32_t kNowhere = UINT32_MAX;

/// One VM to be packed. `cells` is a bitmap of its distinct pages, or of a sample of them: what two
/// items both have, a bin stores once.
struct PackItem {
  std::vector<std::uint64_t> cells;  ///< PackProblem::words of them.
  double own = 0;                    ///< Pages that it shares with nobody.
  Loads loads{};
  std::vector<std::uint32_t> apart;  ///< Groups of which a bin takes one item each.
  std::vector<bool> allowed;         ///< By bin; empty: every bin.
};

struct PackBin {
  double capacity = 0;  ///< Pages.
  Loads loads{};
};

/// Bin packing with overlapping items ("Pagination", Grange, Kacem and Martin 2018): the memory of
/// a bin is the *union* of its items' cells, in pages, and their own pages.
struct PackProblem {
  std::size_t words = 0;  ///< At most kPackWordsMax.

  /// Pages behind a number of cells: rises from 0; words * 64 + 1 values. Linear where each cell is
  /// one page; else the correction for pages that collide in a cell.
  std::vector<double> pages_of_cells;

  std::vector<PackItem> items;
  std::vector<PackBin> bins;

  /// Cells that are `unit` pages each.
  static std::vector<double> linear(std::size_t words, double unit);
};

/// Which bin each item is in; kNowhere for an item that no bin takes.
struct Packing {
  std::vector<std::uint32_t> bin_of;
  std::size_t bins_used = 0;
  std::size_t left_out = 0;
  std::size_t rounds = 0;  ///< That the search took.
};

/// The first promise that a packing breaks, in one sentence; empty when it keeps them all. Written
/// without any of the search's own bookkeeping, so that it can judge it.
std::string find_fault(const PackProblem& problem, const Packing& packing);

}  // namespace samepage::placer
