#include <array>
#include <cstdint>
#include <cstring>
#include <utility>

#include <immintrin.h>

#include "core/page_hash_kernels.h"

// Written for one page so that the accumulators and the secret stay in registers: libxxhash keeps
// them in memory, and a processor that waits for memory has then less of a page in flight. Names
// and steps are those of XXH3's specification, whose primes 1 to 5 are A to E here.

#if !defined(__clang__)
// GCC 12 warns of its own header's code, and regrouping the sums would need more registers.
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#pragma GCC optimize("no-tree-reassoc")
#endif

namespace samepage::page_hash_kernels {
namespace {

constexpr std::ptrdiff_t kStripe = 64;
constexpr int kBlockStripes = 16;
constexpr int kBlock = kBlockStripes * kStripe;
constexpr int kLast = kBlock - kStripe;
constexpr int kBlocks = 4;
constexpr int kSecretLast = 128;  ///< Of the secret's 192 bytes, where the last 64 begin.

constexpr std::uint64_t kPrime32A = 0x9E3779B1;
constexpr std::uint64_t kPrime32B = 0x85EBCA77;
constexpr std::uint64_t kPrime32C = 0xC2B2AE3D;
constexpr std::uint64_t kPrime64A = 0x9E3779B185EBCA87;
constexpr std::uint64_t kPrime64B = 0xC2B2AE3D27D4EB4F;
constexpr std::uint64_t kPrime64C = 0x165667B19E3779F9;
constexpr std::uint64_t kPrime64D = 0x85EBCA77C2B2AE63;
constexpr std::uint64_t kPrime64E = 0x27D4EB2F165667C5;
constexpr std::uint64_t kPrimeMx1 = 0x165667919E3779F9;

using Accumulators = std::array<std::uint64_t, 8>;

[[gnu::target("avx512f"), gnu::always_inline]] inline __m512i take_stripe(const std::byte* at) {
  _mm_prefetch(at + kReadAhead, _MM_HINT_NTA);  // Leaves the guests' data in the caches.
  return _mm512_loadu_si512(at);
}

[[gnu::target("avx512f"), gnu::always_inline]] inline __m512i accumulate(__m512i sums, __m512i data,
                                                                         __m512i key) {
  const __m512i keyed = _mm512_xor_si512(data, key);
  const __m512i products = _mm512_mul_epu32(keyed, _mm512_srli_epi64(keyed, 32));
  const __m512i swapped = _mm512_shuffle_epi32(data, _MM_PERM_BADC);
  return _mm512_add_epi64(sums, _mm512_add_epi64(products, swapped));
}

struct Keys {
  __m512i of[kBlockStripes];
};

// Packs instead of loops: GCC keeps an array in registers only when no loop indexes it.
template <int... kStripes>
[[gnu::target("avx512f"), gnu::always_inline]] inline Keys load_keys(
    const char* secret, std::integer_sequence<int, kStripes...> /*all*/) {
  return {{_mm512_loadu_si512(secret + std::ptrdiff_t{8} * kStripes)...}};
}

template <int... kStripes>
[[gnu::target("avx512f"), gnu::always_inline]] inline __m512i accumulate_stripes(
    __m512i sums, const std::byte* at, const Keys& keys,
    std::integer_sequence<int, kStripes...> /*which*/) {
  ((sums = accumulate(sums, take_stripe(at + kStripes * kStripe), keys.of[kStripes])), ...);
  return sums;
}

[[gnu::target("avx512f"), gnu::always_inline]] inline __m512i scramble(__m512i sums, __m512i key) {
  const __m512i prime = _mm512_set1_epi64(static_cast<long long>(kPrime32A));
  const __m512i mixed = _mm512_xor_si512(_mm512_xor_si512(sums, _mm512_srli_epi64(sums, 47)), key);
  const __m512i low = _mm512_mul_epu32(mixed, prime);
  const __m512i high = _mm512_mul_epu32(_mm512_srli_epi64(mixed, 32), prime);
  return _mm512_add_epi64(low, _mm512_slli_epi64(high, 32));
}

std::uint64_t word_at(const char* bytes) {
  std::uint64_t word = 0;
  std::memcpy(&word, bytes, sizeof(word));
  return word;
}

std::uint64_t fold(std::uint64_t a, std::uint64_t b) {
  __extension__ using Wide = unsigned __int128;
  const Wide product = Wide{a} * b;
  return static_cast<std::uint64_t>(product) ^ static_cast<std::uint64_t>(product >> 64U);
}

std::uint64_t finish(const Accumulators& sums, const char* secret) {
  std::uint64_t hash = kPrime64A * kBlocks * kBlock;
  for (std::size_t i = 0; i < sums.size(); i += 2, secret += 16) {
    hash += fold(sums[i] ^ word_at(secret), sums[i + 1] ^ word_at(secret + 8));
  }
  hash = (hash ^ hash >> 37U) * kPrimeMx1;
  return hash ^ hash >> 32U;
}

}  // namespace

[[gnu::target("avx512f")]] void avx512(const std::byte* pages, std::size_t count,
                                       const void* secret_bytes, std::uint64_t* hashes) {
  const auto* const secret = static_cast<const char*>(secret_bytes);
  const Keys keys = load_keys(secret, std::make_integer_sequence<int, kBlockStripes>());
  const __m512i scramble_key = _mm512_loadu_si512(secret + kSecretLast);
  const __m512i last_key = _mm512_loadu_si512(secret + kSecretLast - 7);
  const __m512i start =
      _mm512_setr_epi64(kPrime32C, kPrime64A, static_cast<long long>(kPrime64B), kPrime64C,
                        static_cast<long long>(kPrime64D), kPrime32B, kPrime64E, kPrime32A);
  const auto all_but_last = std::make_integer_sequence<int, kBlockStripes - 1>();

  const std::byte* at = pages;
  for (std::size_t page = 0; page < count; ++page) {
    __m512i sums = start;
    for (int block = 0; block < kBlocks - 1; ++block, at += kBlock) {
      sums = accumulate_stripes(sums, at, keys, all_but_last);
      sums = accumulate(sums, take_stripe(at + kLast), keys.of[kBlockStripes - 1]);
      sums = scramble(sums, scramble_key);
    }
    sums = accumulate_stripes(sums, at, keys, all_but_last);
    sums = accumulate(sums, take_stripe(at + kLast), last_key);
    at += kBlock;
    alignas(kStripe) Accumulators words;
    _mm512_store_si512(words.data(), sums);
    hashes[page] = finish(words, secret + 11);
  }
}

}  // namespace samepage::page_hash_kernels
