#pragma once

#include <algorithm>
#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "placer/packing/problem.h"
#include "placer/packing/wide_cells.h"

namespace samepage::placer {

/// A bitmap of `kWords` words, a constant so that loops over it unroll and vectorize.
template <std::size_t kWords>
using Cells = std::array<std::uint64_t, kWords>;

/// From here on a call to a function for wide vectors beats inlined code.
inline constexpr std::size_t kWideWords = 64;

/// Cells of `a` that are not in `b`.
template <std::size_t kWords>
std::size_t count_new(const Cells<kWords>& a, const Cells<kWords>& b) {
  if constexpr (kWords >= kWideWords) return count_only(a.data(), b.data(), kWords);
  std::size_t sum = 0;
  for (std::size_t w = 0; w < kWords; ++w) {
    sum += static_cast<std::size_t>(std::popcount(a[w] & ~b[w]));
  }
  return sum;
}

template <std::size_t kWords>
std::size_t count_common(const Cells<kWords>& a, const Cells<kWords>& b) {
  if constexpr (kWords >= kWideWords) return count_both(a.data(), b.data(), kWords);
  std::size_t sum = 0;
  for (std::size_t w = 0; w < kWords; ++w) {
    sum += static_cast<std::size_t>(std::popcount(a[w] & b[w]));
  }
  return sum;
}

template <std::size_t kWords>
std::size_t count_common(const Cells<kWords>& a, const Cells<kWords>& b, const Cells<kWords>& c) {
  if constexpr (kWords >= kWideWords) {
    return count_all_three(a.data(), b.data(), c.data(), kWords);
  }
  std::size_t sum = 0;
  for (std::size_t w = 0; w < kWords; ++w) {
    sum += static_cast<std::size_t>(std::popcount(a[w] & b[w] & c[w]));
  }
  return sum;
}

/// Cells of a bin once one item, with the cells `gone`, has changed places with another.
template <std::size_t kWords>
std::size_t count_exchanged(const Cells<kWords>& once, const Cells<kWords>& twice,
                            const Cells<kWords>& gone, const Cells<kWords>& added) {
  if constexpr (kWords >= kWideWords) {
    return count_exchanged(once.data(), twice.data(), gone.data(), added.data(), kWords);
  }
  std::size_t sum = 0;
  for (std::size_t w = 0; w < kWords; ++w) {
    const std::uint64_t left = once[w] & ~(gone[w] & ~twice[w]);
    sum += static_cast<std::size_t>(std::popcount(left | added[w]));
  }
  return sum;
}

/// An item with its cells in place.
template <std::size_t kWords>
struct PackedItem {
  Cells<kWords> cells{};
  double own = 0;
  const PackItem* item = nullptr;
};

/// One bin while the search goes on. Beside the union of its items' cells it knows which cells just
/// one item, and just two, have: what an item or a pair would free by leaving is then a few AND
/// and popcounts, whatever the number of items.
///
/// Invariant: once, twice and thrice are the cells held at least so often. Threads: none of its
/// own.
template <std::size_t kWords>
struct BinState {
  Cells<kWords> once{};
  Cells<kWords> twice{};
  Cells<kWords> thrice{};
  std::size_t cells = 0;  ///< In `once`.
  double own = 0;
  Loads loads{};
  std::vector<std::uint32_t> items;

  void add(const PackedItem<kWords>& added, std::uint32_t number) {
    count_in(added);
    items.push_back(number);
    cells = count_common(once, once);
  }

  /// Order of the others is not kept.
  void remove(std::uint32_t number, const std::vector<PackedItem<kWords>>& all) {
    const auto found = std::find(items.begin(), items.end(), number);
    *found = items.back();
    items.pop_back();
    const Cells<kWords> unsure = count_out(all[number]);
    for (std::size_t w = 0; w < kWords; ++w) {
      if (unsure[w] != 0) thrice[w] |= held_thrice(w, unsure[w], all);
    }
    own = 0;
    loads = {};
    for (const std::uint32_t item : items) add_sums(all[item]);
    cells = count_common(once, once);
  }

  void recount(const std::vector<PackedItem<kWords>>& all) {
    once = twice = thrice = {};
    own = 0;
    loads = {};
    for (const std::uint32_t item : items) count_in(all[item]);
    cells = count_common(once, once);
  }

 private:
  void count_in(const PackedItem<kWords>& added) {
    if constexpr (kWords >= kWideWords) {
      add_cells(once.data(), twice.data(), thrice.data(), added.cells.data(), kWords);
    } else {
      for (std::size_t w = 0; w < kWords; ++w) {
        thrice[w] |= twice[w] & added.cells[w];
        twice[w] |= once[w] & added.cells[w];
        once[w] |= added.cells[w];
      }
    }
    add_sums(added);
  }

  /// Returns the cells of the item that were held at least three times, which may be twice now:
  /// they are not in `thrice` any more.
  Cells<kWords> count_out(const PackedItem<kWords>& gone) {
    Cells<kWords> unsure;
    for (std::size_t w = 0; w < kWords; ++w) {
      const std::uint64_t had = gone.cells[w];
      unsure[w] = had & thrice[w];
      once[w] &= ~(had & ~twice[w]);
      twice[w] &= ~(had & ~thrice[w]);
      thrice[w] &= ~had;
    }
    return unsure;
  }

  /// Of one word's cells in `asked`, those that three items have. Cells that many have, an
  /// operating system's, are known after the first few items.
  std::uint64_t held_thrice(std::size_t w, std::uint64_t asked,
                            const std::vector<PackedItem<kWords>>& all) const {
    std::uint64_t one = 0;
    std::uint64_t two = 0;
    std::uint64_t three = 0;
    for (const std::uint32_t item : items) {
      const std::uint64_t has = all[item].cells[w] & asked;
      three |= two & has;
      two |= one & has;
      one |= has;
      if (three == asked) break;
    }
    return three;
  }

  void add_sums(const PackedItem<kWords>& added) {
    own += added.own;
    for (std::size_t i = 0; i < kLoads; ++i) loads.at(i) += added.item->loads.at(i);
  }
};

}  // namespace samepage::placer
