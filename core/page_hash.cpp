#include "core/page_hash.h"

#include <xxhash.h>

namespace samepage {

PageHash hash_page(PageView page, HashSeed seed) {
  return {XXH3_64bits_withSeed(page.data(), page.size(), seed.value)};
}

}  // namespace samepage
