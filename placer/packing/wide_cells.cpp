#include "placer/packing/wide_cells.h"

namespace samepage::placer {
namespace {

struct Both {
  [[gnu::always_inline]] static std::uint64_t of(std::uint64_t a, std::uint64_t b, std::uint64_t) {
    return a & b;
  }
};
struct Only {
  [[gnu::always_inline]] static std::uint64_t of(std::uint64_t a, std::uint64_t b, std::uint64_t) {
    return a & ~b;
  }
};
struct Three {
  [[gnu::always_inline]] static std::uint64_t of(std::uint64_t a, std::uint64_t b,
                                                 std::uint64_t c) {
    return a & b & c;
  }
};

struct Bitmaps {
  const std::uint64_t* a;
  const std::uint64_t* b;
  const std::uint64_t* c;
};

/// The loop that every version below compiles for its own instruction set.
template <class Pick>
[[gnu::always_inline]] inline std::size_t count(const Bitmaps& maps, std::size_t words) {
  std::uint64_t sum = 0;
  for (std::size_t i = 0; i < words; ++i) {
    sum +=
        static_cast<std::uint64_t>(__builtin_popcountll(Pick::of(maps.a[i], maps.b[i], maps.c[i])));
  }
  return sum;
}

template <class Pick>
[[gnu::optimize("O3")]] std::size_t count_plain(const Bitmaps& maps, std::size_t words) {
  return count<Pick>(maps, words);
}

#if defined(__x86_64__)
template <class Pick>
[[gnu::target("popcnt"), gnu::optimize("O3")]] std::size_t count_popcnt(const Bitmaps& maps,
                                                                        std::size_t words) {
  return count<Pick>(maps, words);
}

template <class Pick>
[[gnu::target("avx512f,avx512vpopcntdq,prefer-vector-width=512"), gnu::optimize("O3")]] std::size_t
count_avx512(const Bitmaps& maps, std::size_t words) {
  return count<Pick>(maps, words);
}
#endif

using Counter = std::size_t (*)(const Bitmaps& maps, std::size_t words);

// Not target_clones: its resolver runs before the sanitizers' runtime is ready.
template <class Pick>
Counter best_counter() {
#if defined(__x86_64__)
  __builtin_cpu_init();
  if (__builtin_cpu_supports("avx512vpopcntdq") != 0) return count_avx512<Pick>;
  if (__builtin_cpu_supports("popcnt") != 0) return count_popcnt<Pick>;
#endif
  return count_plain<Pick>;
}

template <class Pick>
std::size_t count_best(const Bitmaps& maps, std::size_t words) {
  static const Counter counter = best_counter<Pick>();
  return counter(maps, words);
}

}  // namespace

std::size_t count_both(const std::uint64_t* a, const std::uint64_t* b, std::size_t words) {
  return count_best<Both>({.a = a, .b = b, .c = b}, words);
}

std::size_t count_only(const std::uint64_t* a, const std::uint64_t* b, std::size_t words) {
  return count_best<Only>({.a = a, .b = b, .c = b}, words);
}

std::size_t count_all_three(const std::uint64_t* a, const std::uint64_t* b, const std::uint64_t* c,
                            std::size_t words) {
  return count_best<Three>({.a = a, .b = b, .c = c}, words);
}

}  // namespace samepage::placer
