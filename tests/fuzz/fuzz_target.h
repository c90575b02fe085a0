#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace samepage::fuzz {

// What a fuzz target tests/fuzz/<module>_<what>_fuzz.cpp consists of: LLVMFuzzerTestOneInput, which
// returns 0 and aborts (CHECK) when a promise of the parser is broken, and fuzz_seeds(), the valid
// inputs that mutation starts from. CMake builds it twice (tests/fuzz/CMakeLists.txt): under
// libFuzzer in the preset `fuzz`, and in every preset as a replay with a bounded number of seeded
// mutations. Inputs that once broke something belong into tests/fuzz/corpus/<name>/.

using Input = std::vector<std::byte>;

inline Input to_input(std::span<const std::byte> bytes) {
  return {bytes.begin(), bytes.end()};
}

inline std::span<const std::byte> as_input(const std::uint8_t* data, std::size_t size) {
  return std::as_bytes(std::span(data, size));
}

}  // namespace samepage::fuzz

/// Deterministic; a few inputs of at most some tens of KiB each.
std::vector<samepage::fuzz::Input> fuzz_seeds();

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size);
