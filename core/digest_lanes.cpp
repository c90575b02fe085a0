#include "core/digest_lanes.h"

#if defined(__x86_64__)

#include <bit>

#include <immintrin.h>

#include "core/page.h"

// What a loop over constants has to become for its vectors to stay in registers.
#define SAMEPAGE_LANES __attribute__((target("avx512f,avx512vl")))
#define SAMEPAGE_LANES_INLINE SAMEPAGE_LANES __attribute__((always_inline)) inline

namespace samepage {
namespace {

using Vector = __m512i;  // The same 32-bit word of kDigestLanes inputs.
using Index = std::size_t;

// BLAKE3's domain flags (its paper, table 3).
constexpr std::uint32_t kChunkStart = 1;
constexpr std::uint32_t kChunkEnd = 2;
constexpr std::uint32_t kParent = 4;
constexpr std::uint32_t kRoot = 8;
constexpr std::uint32_t kKeyed = 16;

constexpr Index kBlockBytes = 64;
constexpr Index kChunkBytes = 1024;
constexpr Index kBlocks = kChunkBytes / kBlockBytes;
constexpr Index kChunks = kPageSize / kChunkBytes;
constexpr Index kRounds = 7;

constexpr std::array<std::uint32_t, 4> kInitial{0x6A09E667, 0xBB67AE85, 0x3C6EF372, 0xA54FF53A};

constexpr Index kSchedule[kRounds][16] = {{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15},
                                          {2, 6, 3, 10, 7, 0, 4, 13, 1, 11, 12, 5, 9, 14, 15, 8},
                                          {3, 4, 10, 12, 13, 2, 7, 14, 6, 5, 9, 0, 11, 15, 8, 1},
                                          {10, 7, 12, 9, 14, 3, 13, 15, 4, 0, 11, 2, 5, 8, 1, 6},
                                          {12, 13, 9, 11, 15, 10, 14, 8, 7, 2, 5, 3, 0, 1, 6, 4},
                                          {9, 14, 11, 5, 8, 12, 15, 1, 13, 3, 0, 10, 2, 6, 4, 7},
                                          {11, 15, 5, 0, 1, 9, 8, 6, 14, 10, 2, 12, 3, 4, 7, 13}};

// The words that each of the four mixings of half a round takes: columns, then diagonals.
constexpr Index kMixed[2][4][4] = {{{0, 4, 8, 12}, {1, 5, 9, 13}, {2, 6, 10, 14}, {3, 7, 11, 15}},
                                   {{0, 5, 10, 15}, {1, 6, 11, 12}, {2, 7, 8, 13}, {3, 4, 9, 14}}};

struct Message {
  alignas(64) Vector words[16];
};
struct Chaining {
  alignas(64) Vector words[8];
};

SAMEPAGE_LANES_INLINE Vector all(std::uint32_t word) {
  return _mm512_set1_epi32(static_cast<int>(word));
}

/// The block at `at` of every lane's input, which are `stride` bytes apart, word by word.
SAMEPAGE_LANES_INLINE void load_block(const std::byte* at, Index stride, Message& message) {
  Vector rows[16];
  Vector pairs[16];
  Vector fours[16];
#pragma GCC unroll 16
  for (Index i = 0; i < 16; ++i) {
    const std::byte* const row = at + i * stride;
    rows[i] = _mm512_loadu_si512(row);
    // So many streams at equal distances are beyond what the processor foresees by itself.
    _mm_prefetch(reinterpret_cast<const char*>(row + 2 * kBlockBytes), _MM_HINT_T0);
  }
#pragma GCC unroll 8
  for (Index i = 0; i < 16; i += 2) {
    pairs[i] = _mm512_unpacklo_epi32(rows[i], rows[i + 1]);
    pairs[i + 1] = _mm512_unpackhi_epi32(rows[i], rows[i + 1]);
  }
#pragma GCC unroll 4
  for (Index i = 0; i < 16; i += 4) {
    fours[i] = _mm512_unpacklo_epi64(pairs[i], pairs[i + 2]);
    fours[i + 1] = _mm512_unpackhi_epi64(pairs[i], pairs[i + 2]);
    fours[i + 2] = _mm512_unpacklo_epi64(pairs[i + 1], pairs[i + 3]);
    fours[i + 3] = _mm512_unpackhi_epi64(pairs[i + 1], pairs[i + 3]);
  }
#pragma GCC unroll 4
  for (Index i = 0; i < 4; ++i) {
    const Vector a = _mm512_shuffle_i32x4(fours[i], fours[i + 4], 0x88);
    const Vector b = _mm512_shuffle_i32x4(fours[i], fours[i + 4], 0xdd);
    const Vector c = _mm512_shuffle_i32x4(fours[i + 8], fours[i + 12], 0x88);
    const Vector d = _mm512_shuffle_i32x4(fours[i + 8], fours[i + 12], 0xdd);
    message.words[i] = _mm512_shuffle_i32x4(a, c, 0x88);
    message.words[i + 4] = _mm512_shuffle_i32x4(b, d, 0x88);
    message.words[i + 8] = _mm512_shuffle_i32x4(a, c, 0xdd);
    message.words[i + 12] = _mm512_shuffle_i32x4(b, d, 0xdd);
  }
}

/// Half of the mixing of the four columns or diagonals of `count` states, whose steps alternate.
template <Index count, int rotate_d, int rotate_b>
SAMEPAGE_LANES_INLINE void mix(Vector (&state)[count][16], const Message* messages, Index round,
                               Index half, Index which) {
#pragma GCC unroll 4
  for (Index i = 0; i < 4; ++i) {
#pragma GCC unroll 2
    for (Index k = 0; k < count; ++k) {
      const auto& m = kMixed[half][i];
      const Vector word = messages[k].words[kSchedule[round][8 * half + 2 * i + which]];
      state[k][m[0]] = _mm512_add_epi32(_mm512_add_epi32(state[k][m[0]], word), state[k][m[1]]);
    }
  }
#pragma GCC unroll 4
  for (Index i = 0; i < 4; ++i) {
#pragma GCC unroll 2
    for (Index k = 0; k < count; ++k) {
      const auto& m = kMixed[half][i];
      state[k][m[3]] = _mm512_ror_epi32(_mm512_xor_si512(state[k][m[3]], state[k][m[0]]), rotate_d);
    }
  }
#pragma GCC unroll 4
  for (Index i = 0; i < 4; ++i) {
#pragma GCC unroll 2
    for (Index k = 0; k < count; ++k) {
      const auto& m = kMixed[half][i];
      state[k][m[2]] = _mm512_add_epi32(state[k][m[2]], state[k][m[3]]);
    }
  }
#pragma GCC unroll 4
  for (Index i = 0; i < 4; ++i) {
#pragma GCC unroll 2
    for (Index k = 0; k < count; ++k) {
      const auto& m = kMixed[half][i];
      state[k][m[1]] = _mm512_ror_epi32(_mm512_xor_si512(state[k][m[1]], state[k][m[2]]), rotate_b);
    }
  }
}

/// Compresses one block of each input into its chaining value.
template <Index count>
SAMEPAGE_LANES_INLINE void compress(const Message (&messages)[count], Index first_counter,
                                    std::uint32_t flags, Chaining (&chaining)[count]) {
  Vector state[count][16];
#pragma GCC unroll 2
  for (Index k = 0; k < count; ++k) {
#pragma GCC unroll 8
    for (Index i = 0; i < 8; ++i) state[k][i] = chaining[k].words[i];
#pragma GCC unroll 4
    for (Index i = 0; i < 4; ++i) state[k][8 + i] = all(kInitial.at(i));
    state[k][12] = all(static_cast<std::uint32_t>(first_counter + k));
    state[k][13] = all(0);
    state[k][14] = all(kBlockBytes);
    state[k][15] = all(flags);
  }
#pragma GCC unroll 7
  for (Index round = 0; round < kRounds; ++round) {
#pragma GCC unroll 2
    for (Index half = 0; half < 2; ++half) {
      mix<count, 16, 12>(state, messages, round, half, 0);
      mix<count, 8, 7>(state, messages, round, half, 1);
    }
  }
#pragma GCC unroll 2
  for (Index k = 0; k < count; ++k) {
#pragma GCC unroll 8
    for (Index i = 0; i < 8; ++i) {
      chaining[k].words[i] = _mm512_xor_si512(state[k][i], state[k][i + 8]);
    }
  }
}

template <Index count>
SAMEPAGE_LANES_INLINE void begin(const DigestKeyWords& key, Chaining (&chaining)[count]) {
  for (Chaining& one : chaining) {
    for (Index i = 0; i < 8; ++i) one.words[i] = all(key.at(i));
  }
}

/// Two chunks of every page.
SAMEPAGE_LANES void digest_chunks(const std::byte* pages, Index first_chunk,
                                  const DigestKeyWords& key, Chaining (&chaining)[2]) {
  Message messages[2];
  begin(key, chaining);
  for (Index block = 0; block < kBlocks; ++block) {
    for (Index k = 0; k < 2; ++k) {
      load_block(pages + (first_chunk + k) * kChunkBytes + block * kBlockBytes, kPageSize,
                 messages[k]);
    }
    const std::uint32_t edges =
        (block == 0 ? kChunkStart : 0U) | (block + 1 == kBlocks ? kChunkEnd : 0U);
    compress(messages, first_chunk, kKeyed | edges, chaining);
  }
}

SAMEPAGE_LANES_INLINE void join(const Chaining& left, const Chaining& right, Message& message) {
  for (Index i = 0; i < 8; ++i) {
    message.words[i] = left.words[i];
    message.words[8 + i] = right.words[i];
  }
}

SAMEPAGE_LANES void digest(const std::byte* pages, const DigestKeyWords& key, PageDigest* digests) {
  static_assert(kChunks == 4);
  Message messages[2];
  Chaining parents[2];
  for (Index half = 0; half < 2; ++half) {
    Chaining chunks[2];
    digest_chunks(pages, 2 * half, key, chunks);
    join(chunks[0], chunks[1], messages[half]);
  }
  begin(key, parents);
  // A parent's counter is zero, so its two states are compressed one by one.
  for (Index half = 0; half < 2; ++half) {
    Message one[1] = {messages[half]};
    Chaining parent[1] = {parents[half]};
    compress(one, 0, kKeyed | kParent, parent);
    parents[half] = parent[0];
  }
  Message last[1];
  Chaining roots[1];
  join(parents[0], parents[1], last[0]);
  begin(key, roots);
  compress(last, 0, kKeyed | kParent | kRoot, roots);
  alignas(64) std::array<std::array<std::uint32_t, kDigestLanes>, 8> words;
  for (Index i = 0; i < 8; ++i) _mm512_store_si512(words.at(i).data(), roots[0].words[i]);
  for (Index lane = 0; lane < kDigestLanes; ++lane) {
    std::array<std::uint32_t, 8> root;
    for (Index i = 0; i < 8; ++i) root.at(i) = words.at(i).at(lane);
    digests[lane].bytes = std::bit_cast<std::array<std::byte, 32>>(root);
  }
}

}  // namespace

bool has_digest_lanes() {
  static const bool has =
      __builtin_cpu_supports("avx512f") != 0 && __builtin_cpu_supports("avx512vl") != 0;
  return has;
}

void digest_lanes(const std::byte* pages, const DigestKeyWords& key,
                  std::span<PageDigest, kDigestLanes> digests) {
  digest(pages, key, digests.data());
}

}  // namespace samepage

#else

namespace samepage {

bool has_digest_lanes() {
  return false;
}

void digest_lanes(const std::byte*, const DigestKeyWords&, std::span<PageDigest, kDigestLanes>) {}

}  // namespace samepage

#endif
