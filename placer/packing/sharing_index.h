#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace samepage::placer {

/// How many cells one item has in common with each of thousands of bins, at once: what "the best
/// host for this VM" is computed from.
///
/// An inverted index, laid out by cell: one bit per bin says whether the bin has the cell. The
/// counts of all bins are added up bit-sliced (512 bins to a vector, carry-save adders: Warren,
/// Hacker's Delight, 5-1), so that a query reads each of the item's cells once, in order, and
/// never follows a pointer. 10,000 bins and an item of 300 cells: tens of microseconds.
///
/// Threads: const methods may run at the same time. Lifetime: borrows nothing.
class SharingIndex {
 public:
  SharingIndex(std::size_t words, std::size_t bins);

  /// Gives bin `i` the cells `bitmaps[i]`, all bins at once: far cheaper than one by one.
  void set_all(std::span<const std::span<const std::uint64_t>> bitmaps);

  /// Replaces a bin's cells, given as a bitmap; costs what changed.
  void set(std::size_t bin, std::span<const std::uint64_t> cells);

  /// Writes the number of common cells for every bin; `counts` is resized to bins().
  void count_common(std::span<const std::uint64_t> cells, std::vector<std::uint16_t>& counts) const;

  std::size_t bins() const { return bins_; }

 private:
  std::size_t words_;
  std::size_t bins_;
  std::size_t row_words_;            ///< Of one cell's bits, a multiple of a vector's.
  std::vector<std::uint64_t> rows_;  ///< By cell.
  std::vector<std::uint64_t> cells_of_bin_;
};

}  // namespace samepage::placer
