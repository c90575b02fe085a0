#pragma once

#include <cstddef>
#include <cstdint>

namespace samepage::placer {

// Loops over long bitmaps, by AVX-512 VPOPCNTDQ where there is one. `words` is a multiple of 8.

/// Cells in `a` and `b`.
std::size_t count_both(const std::uint64_t* a, const std::uint64_t* b, std::size_t words);

/// Cells in `a` and not in `b`.
std::size_t count_only(const std::uint64_t* a, const std::uint64_t* b, std::size_t words);

/// Cells in `a`, `b` and `c`.
std::size_t count_all_three(const std::uint64_t* a, const std::uint64_t* b, const std::uint64_t* c,
                            std::size_t words);

/// Cells in `held` or `added`, but for those in `gone` that are not in `held_twice`.
std::size_t count_exchanged(const std::uint64_t* held, const std::uint64_t* held_twice,
                            const std::uint64_t* gone, const std::uint64_t* added,
                            std::size_t words);

/// Counts one more holder of `cells`: `once`, `twice`, `thrice` are held at least so often.
void add_cells(std::uint64_t* once, std::uint64_t* twice, std::uint64_t* thrice,
               const std::uint64_t* cells, std::size_t words);

}  // namespace samepage::placer
