#include "core/page_hash.h"

#define XXH_STATIC_LINKING_ONLY  // For the secret of a seed.
#if defined(__x86_64__)
#include <xxh_x86dispatch.h>  // The same functions, for the CPU at hand.
#else
#include <xxhash.h>
#endif

#include "core/check.h"

namespace samepage {
namespace page_hash_kernels {

static_assert(kPageSize == 4096, "the kernels' page");

// Of more than 240 bytes, XXH3 with a seed is XXH3 with the secret that is made of the seed.
void portable(const std::byte* pages, std::size_t count, const void* secret,
              std::uint64_t* hashes) {
  for (std::size_t i = 0; i < count; ++i, pages += kPageSize) {
    hashes[i] = XXH3_64bits_withSecret(pages, kPageSize, secret, XXH3_SECRET_DEFAULT_SIZE);
  }
}

std::span<const Kernel> supported() {
#if defined(__x86_64__)
  static constexpr std::array<Kernel, 3> kAll = {portable, avx2, avx512};
  __builtin_cpu_init();
  if (__builtin_cpu_supports("avx512f") != 0) return kAll;
  if (__builtin_cpu_supports("avx2") != 0) return std::span(kAll).first(2);
#else
  static constexpr std::array<Kernel, 1> kAll = {portable};
#endif
  return std::span(kAll).first(1);
}

}  // namespace page_hash_kernels

PageHash hash_page(PageView page, HashSeed seed) {
  return {XXH3_64bits_withSeed(page.data(), page.size(), seed.value)};
}

PageHasher::PageHasher(HashSeed seed) : PageHasher(seed, page_hash_kernels::supported().back()) {}

PageHasher::PageHasher(HashSeed seed, page_hash_kernels::Kernel kernel) : kernel_(kernel) {
  static_assert(sizeof(secret_) == XXH3_SECRET_DEFAULT_SIZE);
  XXH3_generateSecret_fromSeed(secret_.data(), seed.value);
}

void PageHasher::hash(std::span<const std::byte> pages, std::span<PageHash> hashes) const {
  CHECK(pages.size() == hashes.size() * kPageSize);
  static_assert(sizeof(PageHash) == sizeof(std::uint64_t));
  if (!hashes.empty()) kernel_(pages.data(), hashes.size(), secret_.data(), &hashes.front().value);
}

}  // namespace samepage
