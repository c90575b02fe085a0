// Compiled with the instruction set's flag: include nothing here that has inline functions of its
// own, which the linker might pick for callers on other processors.

#include "core/page_hash_kernels.h"

#define XXH_INLINE_ALL
#define XXH_PREFETCH_DIST samepage::page_hash_kernels::kReadAhead
#include <xxhash.h>

namespace samepage::page_hash_kernels {

void avx2(const std::byte* pages, std::size_t count, const void* secret, std::uint64_t* hashes) {
  for (std::size_t i = 0; i < count; ++i) {
    hashes[i] = XXH3_64bits_withSecret(pages + i * 4096, 4096, secret, XXH3_SECRET_DEFAULT_SIZE);
  }
}

}  // namespace samepage::page_hash_kernels
