#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

// XXH3-64 of pages under a secret, compiled for one instruction set each; all with the same
// result. Each reads ahead into the pages behind its own: XXH3 waits for memory at the begin of
// every page otherwise, because a processor's own prefetching ends with the page.

namespace samepage::page_hash_kernels {

/// How far. Two pages hide the latency; libxxhash's own distance (512 bytes) is worse than none.
inline constexpr std::size_t kReadAhead = 8192;

/// Hashes `count` pages that follow each other, under XXH3's secret of 192 bytes.
using Kernel = void (*)(const std::byte* pages, std::size_t count, const void* secret,
                        std::uint64_t* hashes);

void portable(const std::byte* pages, std::size_t count, const void* secret, std::uint64_t* hashes);
void avx2(const std::byte* pages, std::size_t count, const void* secret, std::uint64_t* hashes);
void avx512(const std::byte* pages, std::size_t count, const void* secret, std::uint64_t* hashes);

/// Those that this processor can run, the fastest last.
std::span<const Kernel> supported();

}  // namespace samepage::page_hash_kernels
