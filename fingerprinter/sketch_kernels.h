#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

namespace samepage::fingerprinter {

/// How cells are counted: a version for each instruction set, all with the same results.
enum class Kernel : std::uint8_t { kPortable, kAvx2, kAvx512 };

std::string_view to_string(Kernel kernel);  ///< "portable", "avx2", "avx512"

/// Those that this CPU can run, the fastest last.
std::vector<Kernel> supported_kernels();

/// Bits that are set in both of two bitmaps of equal size, a multiple of 8 words.
std::size_t count_common(Kernel kernel, std::span<const std::uint64_t> a,
                         std::span<const std::uint64_t> b);

/// The same by the fastest kernel of this CPU.
std::size_t count_common(std::span<const std::uint64_t> a, std::span<const std::uint64_t> b);

/// Bits that are set in one bitmap.
std::size_t count_set(std::span<const std::uint64_t> bitmap);

}  // namespace samepage::fingerprinter
