#include "placer/packing/sharing_index.h"

#include <algorithm>
#include <array>
#include <bit>

#include "core/check.h"

namespace samepage::placer {
namespace {

constexpr std::size_t kVectorWords = 8;
constexpr std::size_t kPlanes = 16;  // Counts up to 65,535.
using Vector = std::array<std::uint64_t, kVectorWords>;

struct Sum {
  Vector low;
  Vector carry;
};

/// Adds three bits in each of 512 columns.
[[gnu::always_inline]] inline Sum add(const Vector& a, const Vector& b, const Vector& c) {
  Sum sum;
  for (std::size_t i = 0; i < kVectorWords; ++i) {
    const std::uint64_t half = a[i] ^ b[i];
    sum.low[i] = half ^ c[i];
    sum.carry[i] = (a[i] & b[i]) | (half & c[i]);
  }
  return sum;
}

[[gnu::always_inline]] inline void ripple(Vector carry, std::size_t plane,
                                          std::array<Vector, kPlanes>& planes) {
  for (; plane < kPlanes; ++plane) {
    std::uint64_t any = 0;
    for (std::size_t i = 0; i < kVectorWords; ++i) {
      const std::uint64_t next = planes[plane][i] & carry[i];
      planes[plane][i] ^= carry[i];
      carry[i] = next;
      any |= next;
    }
    if (any == 0) return;
  }
}

[[gnu::always_inline]] inline Vector load(const std::uint64_t* words) {
  Vector vector;
  std::copy_n(words, kVectorWords, vector.begin());
  return vector;
}

/// One vector's columns: four rows at a time through a tree of adders, so that the long ripple is
/// taken once in four.
[[gnu::always_inline]] inline void count_columns(std::span<const std::uint64_t* const> rows,
                                                 std::size_t offset,
                                                 std::array<Vector, kPlanes>& planes) {
  planes = {};
  std::size_t row = 0;
  for (; row + 4 <= rows.size(); row += 4) {
    const Sum first = add(planes[0], load(rows[row] + offset), load(rows[row + 1] + offset));
    const Sum second = add(first.low, load(rows[row + 2] + offset), load(rows[row + 3] + offset));
    planes[0] = second.low;
    const Sum twos = add(planes[1], first.carry, second.carry);
    planes[1] = twos.low;
    ripple(twos.carry, 2, planes);
  }
  for (; row < rows.size(); ++row) ripple(load(rows[row] + offset), 0, planes);
}

[[gnu::always_inline]] inline void spread(const std::array<Vector, kPlanes>& planes,
                                          std::size_t planes_used, std::uint16_t* counts) {
  for (std::size_t word = 0; word < kVectorWords; ++word) {
    std::array<std::uint16_t, 64> sums{};
    for (std::size_t plane = 0; plane < planes_used; ++plane) {
      const std::uint64_t bits = planes[plane][word];
      for (std::size_t i = 0; i < 64; ++i) {
        sums[i] = static_cast<std::uint16_t>(sums[i] | (((bits >> i) & 1U) << plane));
      }
    }
    std::copy(sums.begin(), sums.end(), counts + word * 64);
  }
}

[[gnu::always_inline]] inline void count_all(std::span<const std::uint64_t* const> rows,
                                             std::size_t row_words, std::uint16_t* counts) {
  std::array<Vector, kPlanes> planes;
  const auto planes_used = static_cast<std::size_t>(std::bit_width(rows.size()));
  for (std::size_t offset = 0; offset < row_words; offset += kVectorWords) {
    count_columns(rows, offset, planes);
    spread(planes, planes_used, counts + offset * 64);
  }
}

void count_plain(std::span<const std::uint64_t* const> rows, std::size_t row_words,
                 std::uint16_t* counts) {
  count_all(rows, row_words, counts);
}

#if defined(__x86_64__) && !defined(__clang__)
[[gnu::target("avx2"), gnu::optimize("O3")]] void count_avx2(
    std::span<const std::uint64_t* const> rows, std::size_t row_words, std::uint16_t* counts) {
  count_all(rows, row_words, counts);
}

[[gnu::target("avx512f,avx512bw,prefer-vector-width=512"), gnu::optimize("O3")]] void count_avx512(
    std::span<const std::uint64_t* const> rows, std::size_t row_words, std::uint16_t* counts) {
  count_all(rows, row_words, counts);
}
#endif

void count(std::span<const std::uint64_t* const> rows, std::size_t row_words,
           std::uint16_t* counts) {
#if defined(__x86_64__) && !defined(__clang__)
  if (__builtin_cpu_supports("avx512f") != 0 && __builtin_cpu_supports("avx512bw") != 0) {
    return count_avx512(rows, row_words, counts);
  }
  if (__builtin_cpu_supports("avx2") != 0) return count_avx2(rows, row_words, counts);
#endif
  count_plain(rows, row_words, counts);
}

using Square = std::array<std::uint64_t, 64>;

/// Turns 64 rows of 64 bits into columns, by halves of halves (Hacker's Delight, 7-3).
void transpose(Square& rows) {
  std::uint64_t mask = 0x00000000FFFFFFFF;
  for (std::size_t half = 32; half != 0; half /= 2, mask ^= mask << half) {
    for (std::size_t i = 0; i < 64; i = (i + half + 1) & ~half) {
      const std::uint64_t swapped = ((rows[i] >> half) ^ rows[i + half]) & mask;
      rows[i] ^= swapped << half;
      rows[i + half] ^= swapped;
    }
  }
}

}  // namespace

SharingIndex::SharingIndex(std::size_t words, std::size_t bins)
    : words_(words),
      bins_(bins),
      row_words_((bins + 64 * kVectorWords - 1) / (64 * kVectorWords) * kVectorWords),
      rows_(words * 64 * row_words_),
      cells_of_bin_(words * bins) {}

void SharingIndex::set_all(std::span<const std::span<const std::uint64_t>> bitmaps) {
  CHECK(bitmaps.size() == bins_);
  for (std::size_t bin = 0; bin < bins_; ++bin) {
    CHECK(bitmaps[bin].size() == words_);
    std::ranges::copy(bitmaps[bin], &cells_of_bin_[bin * words_]);
  }
  Square square{};
  for (std::size_t begin = 0; begin < bins_; begin += 64) {
    const std::size_t bins = std::min<std::size_t>(64, bins_ - begin);
    for (std::size_t w = 0; w < words_; ++w) {
      square = {};
      for (std::size_t i = 0; i < bins; ++i) square[i] = bitmaps[begin + i][w];
      transpose(square);
      for (std::size_t i = 0; i < 64; ++i)
        rows_[(w * 64 + i) * row_words_ + begin / 64] = square[i];
    }
  }
}

void SharingIndex::set(std::size_t bin, std::span<const std::uint64_t> cells) {
  CHECK(bin < bins_);
  CHECK(cells.size() == words_);
  const std::uint64_t bit = std::uint64_t{1} << (bin % 64);
  for (std::size_t w = 0; w < words_; ++w) {
    std::uint64_t& known = cells_of_bin_[bin * words_ + w];
    for (std::uint64_t changed = known ^ cells[w]; changed != 0; changed &= changed - 1) {
      const std::size_t cell = w * 64 + static_cast<std::size_t>(std::countr_zero(changed));
      rows_[cell * row_words_ + bin / 64] ^= bit;
    }
    known = cells[w];
  }
}

void SharingIndex::count_common(std::span<const std::uint64_t> cells,
                                std::vector<std::uint16_t>& counts) const {
  CHECK(cells.size() == words_);
  thread_local std::vector<const std::uint64_t*> rows;
  rows.clear();
  for (std::size_t w = 0; w < words_; ++w) {
    for (std::uint64_t rest = cells[w]; rest != 0; rest &= rest - 1) {
      const std::size_t cell = w * 64 + static_cast<std::size_t>(std::countr_zero(rest));
      rows.push_back(&rows_[cell * row_words_]);
    }
  }
  counts.resize(row_words_ * 64);
  count(rows, row_words_, counts.data());
  counts.resize(bins_);
}

}  // namespace samepage::placer
