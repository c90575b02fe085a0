#include "fingerprinter/sketch_kernels.h"

#include <array>
#include <bit>
#include <numeric>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include "core/check.h"

namespace samepage::fingerprinter {
namespace {

using Counter = std::size_t (*)(const std::uint64_t* a, const std::uint64_t* b, std::size_t words);

std::size_t count_portable(const std::uint64_t* a, const std::uint64_t* b, std::size_t words) {
  std::size_t cells = 0;
  for (std::size_t i = 0; i < words; ++i) {
    cells += static_cast<std::size_t>(std::popcount(a[i] & b[i]));
  }
  return cells;
}

#if defined(__x86_64__)

// Four bits at a time from a table in a register, added up by SAD (Mula, Kurz and Lemire 2016).
[[gnu::target("avx2")]] std::size_t count_avx2(const std::uint64_t* a, const std::uint64_t* b,
                                               std::size_t words) {
  const __m256i table = _mm256_setr_epi8(0, 1, 1, 2, 1, 2, 2, 3, 1, 2, 2, 3, 2, 3, 3, 4,  //
                                         0, 1, 1, 2, 1, 2, 2, 3, 1, 2, 2, 3, 2, 3, 3, 4);
  const __m256i low = _mm256_set1_epi8(0x0F);
  __m256i sum = _mm256_setzero_si256();
  for (std::size_t i = 0; i < words; i += 4) {
    const __m256i both =
        _mm256_and_si256(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(a + i)),
                         _mm256_loadu_si256(reinterpret_cast<const __m256i*>(b + i)));
    const __m256i first = _mm256_shuffle_epi8(table, _mm256_and_si256(both, low));
    const __m256i second =
        _mm256_shuffle_epi8(table, _mm256_and_si256(_mm256_srli_epi16(both, 4), low));
    sum = _mm256_add_epi64(sum,
                           _mm256_sad_epu8(_mm256_add_epi8(first, second), _mm256_setzero_si256()));
  }
  alignas(32) std::array<std::uint64_t, 4> parts{};
  _mm256_store_si256(reinterpret_cast<__m256i*>(parts.data()), sum);
  return std::accumulate(parts.begin(), parts.end(), std::uint64_t{0});
}

[[gnu::target("avx512f,avx512vpopcntdq")]] std::size_t count_avx512(const std::uint64_t* a,
                                                                    const std::uint64_t* b,
                                                                    std::size_t words) {
  __m512i even = _mm512_setzero_si512();
  __m512i odd = _mm512_setzero_si512();
  std::size_t i = 0;
  for (; i + 16 <= words; i += 16) {
    even = _mm512_add_epi64(even, _mm512_popcnt_epi64(_mm512_and_si512(_mm512_loadu_si512(a + i),
                                                                       _mm512_loadu_si512(b + i))));
    odd = _mm512_add_epi64(odd, _mm512_popcnt_epi64(_mm512_and_si512(
                                    _mm512_loadu_si512(a + i + 8), _mm512_loadu_si512(b + i + 8))));
  }
  if (i < words) {
    even = _mm512_add_epi64(even, _mm512_popcnt_epi64(_mm512_and_si512(_mm512_loadu_si512(a + i),
                                                                       _mm512_loadu_si512(b + i))));
  }
  // Not _mm512_reduce_add_epi64: GCC 12 warns of its header's own code.
  alignas(64) std::array<std::uint64_t, 8> parts{};
  _mm512_store_si512(parts.data(), _mm512_add_epi64(even, odd));
  return std::accumulate(parts.begin(), parts.end(), std::uint64_t{0});
}

#endif

Counter counter_of(Kernel kernel) {
#if defined(__x86_64__)
  if (kernel == Kernel::kAvx512) return count_avx512;
  if (kernel == Kernel::kAvx2) return count_avx2;
#endif
  return count_portable;
}

}  // namespace

std::string_view to_string(Kernel kernel) {
  switch (kernel) {
    case Kernel::kPortable:
      return "portable";
    case Kernel::kAvx2:
      return "avx2";
    case Kernel::kAvx512:
      return "avx512";
  }
  return "unknown";
}

// Not target_clones: its resolver runs before the sanitizers' runtime is ready.
std::vector<Kernel> supported_kernels() {
  std::vector<Kernel> kernels = {Kernel::kPortable};
#if defined(__x86_64__)
  __builtin_cpu_init();
  if (__builtin_cpu_supports("avx2") != 0) kernels.push_back(Kernel::kAvx2);
  if (__builtin_cpu_supports("avx512vpopcntdq") != 0) kernels.push_back(Kernel::kAvx512);
#endif
  return kernels;
}

std::size_t count_common(Kernel kernel, std::span<const std::uint64_t> a,
                         std::span<const std::uint64_t> b) {
  CHECK(a.size() == b.size());
  CHECK(a.size() % 8 == 0);
  return counter_of(kernel)(a.data(), b.data(), a.size());
}

std::size_t count_common(std::span<const std::uint64_t> a, std::span<const std::uint64_t> b) {
  static const Counter counter = counter_of(supported_kernels().back());
  CHECK(a.size() == b.size());
  CHECK(a.size() % 8 == 0);
  return counter(a.data(), b.data(), a.size());
}

std::size_t count_set(std::span<const std::uint64_t> bitmap) {
  return count_common(bitmap, bitmap);
}

}  // namespace samepage::fingerprinter
