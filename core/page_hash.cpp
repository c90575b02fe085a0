#include "core/page_hash.h"

#if defined(__x86_64__)
#include <xxh_x86dispatch.h>  // The same functions, for the CPU at hand.
#else
#include <xxhash.h>
#endif

namespace samepage {

PageHash hash_page(PageView page, HashSeed seed) {
  return {XXH3_64bits_withSeed(page.data(), page.size(), seed.value)};
}

}  // namespace samepage
