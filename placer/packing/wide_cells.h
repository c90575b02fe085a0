#pragma once

#include <cstddef>
#include <cstdint>

namespace samepage::placer {

// Counting over long bitmaps, by AVX-512 VPOPCNTDQ where there is one. `words` is a multiple of 8.

/// Cells in `a` and `b`.
std::size_t count_both(const std::uint64_t* a, const std::uint64_t* b, std::size_t words);

/// Cells in `a` and not in `b`.
std::size_t count_only(const std::uint64_t* a, const std::uint64_t* b, std::size_t words);

/// Cells in `a`, `b` and `c`.
std::size_t count_all_three(const std::uint64_t* a, const std::uint64_t* b, const std::uint64_t* c,
                            std::size_t words);

}  // namespace samepage::placer
