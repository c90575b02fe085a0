#include "fingerprinter/sketch.h"

#include <algorithm>
#include <bit>
#include <cmath>

namespace samepage::fingerprinter {
namespace {

/// The loop that every version below compiles for its own instruction set.
[[gnu::always_inline]] inline std::size_t count(const std::uint64_t* a, const std::uint64_t* b) {
  std::uint64_t cells = 0;
  for (std::size_t i = 0; i < Sketch::kBandWords; ++i) {
    cells += static_cast<std::uint64_t>(__builtin_popcountll(a[i] | b[i]));
  }
  return cells;
}

using Counter = std::size_t (*)(const std::uint64_t* a, const std::uint64_t* b);

[[gnu::optimize("O3")]] std::size_t count_plain(const std::uint64_t* a, const std::uint64_t* b) {
  return count(a, b);
}

#if defined(__x86_64__)
[[gnu::target("popcnt"), gnu::optimize("O3")]] std::size_t count_popcnt(const std::uint64_t* a,
                                                                        const std::uint64_t* b) {
  return count(a, b);
}

[[gnu::target("avx512f,avx512vpopcntdq,prefer-vector-width=512"), gnu::optimize("O3")]] std::size_t
count_avx512(const std::uint64_t* a, const std::uint64_t* b) {
  return count(a, b);
}
#endif

// Not target_clones: its resolver runs before the sanitizers' runtime is ready.
Counter best_counter() {
#if defined(__x86_64__)
  __builtin_cpu_init();
  if (__builtin_cpu_supports("avx512vpopcntdq") != 0) return count_avx512;
  if (__builtin_cpu_supports("popcnt") != 0) return count_popcnt;
#endif
  return count_plain;
}

std::size_t count_best(const std::uint64_t* a, const std::uint64_t* b) {
  static const Counter counter = best_counter();
  return counter(a, b);
}

}  // namespace

void Sketch::add(PageHash hash) {
  const auto zeros = static_cast<std::size_t>(std::countl_zero(hash.value));
  Band& band = bands_[std::min(zeros, kBands - 1)];
  const std::size_t cell = hash.value % kBandCells;
  band.words[cell / 64] |= std::uint64_t{1} << (cell % 64);
}

void Sketch::merge(const Sketch& other) {
  for (std::size_t i = 0; i < kBands; ++i) {
    for (std::size_t word = 0; word < kBandWords; ++word) {
      bands_[i].words[word] |= other.bands_[i].words[word];
    }
  }
}

double Sketch::share(std::size_t band) {
  return std::ldexp(1.0, -static_cast<int>(std::min(band + 1, kBands - 1)));
}

std::size_t count_cells(const Sketch::Band& band) {
  return count_best(band.words.data(), band.words.data());
}

std::size_t count_cells(const Sketch::Band& a, const Sketch::Band& b) {
  return count_best(a.words.data(), b.words.data());
}

}  // namespace samepage::fingerprinter
