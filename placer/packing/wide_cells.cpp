#include "placer/packing/wide_cells.h"

namespace samepage::placer {
namespace {

struct Bitmaps {
  const std::uint64_t* a;
  const std::uint64_t* b;
  const std::uint64_t* c;
  const std::uint64_t* d;
};

struct Both {
  [[gnu::always_inline]] static std::uint64_t of(const Bitmaps& maps, std::size_t i) {
    return maps.a[i] & maps.b[i];
  }
};
struct Only {
  [[gnu::always_inline]] static std::uint64_t of(const Bitmaps& maps, std::size_t i) {
    return maps.a[i] & ~maps.b[i];
  }
};
struct Three {
  [[gnu::always_inline]] static std::uint64_t of(const Bitmaps& maps, std::size_t i) {
    return maps.a[i] & maps.b[i] & maps.c[i];
  }
};
struct Exchanged {
  [[gnu::always_inline]] static std::uint64_t of(const Bitmaps& maps, std::size_t i) {
    return (maps.a[i] & ~(maps.c[i] & ~maps.b[i])) | maps.d[i];
  }
};

/// The loop that every version below compiles for its own instruction set.
template <class Pick>
[[gnu::always_inline]] inline std::size_t count(const Bitmaps& maps, std::size_t words) {
  std::uint64_t sum = 0;
  for (std::size_t i = 0; i < words; ++i) {
    sum += static_cast<std::uint64_t>(__builtin_popcountll(Pick::of(maps, i)));
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

struct Holders {
  std::uint64_t* once;
  std::uint64_t* twice;
  std::uint64_t* thrice;
};

[[gnu::always_inline]] inline void add_to(const Holders& to, const std::uint64_t* cells,
                                          std::size_t words) {
  for (std::size_t i = 0; i < words; ++i) {
    to.thrice[i] |= to.twice[i] & cells[i];
    to.twice[i] |= to.once[i] & cells[i];
    to.once[i] |= cells[i];
  }
}

[[gnu::optimize("O3")]] void add_plain(const Holders& to, const std::uint64_t* cells,
                                       std::size_t words) {
  add_to(to, cells, words);
}

using Adder = void (*)(const Holders& to, const std::uint64_t* cells, std::size_t words);

#if defined(__x86_64__)
[[gnu::target("avx512f,prefer-vector-width=512"), gnu::optimize("O3")]] void add_avx512(
    const Holders& to, const std::uint64_t* cells, std::size_t words) {
  add_to(to, cells, words);
}

[[gnu::target("avx2"), gnu::optimize("O3")]] void add_avx2(const Holders& to,
                                                           const std::uint64_t* cells,
                                                           std::size_t words) {
  add_to(to, cells, words);
}
#endif

Adder best_adder() {
#if defined(__x86_64__)
  __builtin_cpu_init();
  if (__builtin_cpu_supports("avx512f") != 0) return add_avx512;
  if (__builtin_cpu_supports("avx2") != 0) return add_avx2;
#endif
  return add_plain;
}

}  // namespace

std::size_t count_both(const std::uint64_t* a, const std::uint64_t* b, std::size_t words) {
  return count_best<Both>({.a = a, .b = b, .c = b, .d = b}, words);
}

std::size_t count_only(const std::uint64_t* a, const std::uint64_t* b, std::size_t words) {
  return count_best<Only>({.a = a, .b = b, .c = b, .d = b}, words);
}

std::size_t count_all_three(const std::uint64_t* a, const std::uint64_t* b, const std::uint64_t* c,
                            std::size_t words) {
  return count_best<Three>({.a = a, .b = b, .c = c, .d = c}, words);
}

std::size_t count_exchanged(const std::uint64_t* held, const std::uint64_t* held_twice,
                            const std::uint64_t* gone, const std::uint64_t* added,
                            std::size_t words) {
  return count_best<Exchanged>({.a = held, .b = held_twice, .c = gone, .d = added}, words);
}

void add_cells(std::uint64_t* once, std::uint64_t* twice, std::uint64_t* thrice,
               const std::uint64_t* cells, std::size_t words) {
  static const Adder adder = best_adder();
  adder({.once = once, .twice = twice, .thrice = thrice}, cells, words);
}

}  // namespace samepage::placer
