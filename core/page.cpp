#include "core/page.h"

#include <cstring>

namespace samepage {

bool is_zero(PageView page) {
  if (page.front() != std::byte{0}) return false;
  // A page equals itself shifted by one byte only when all its bytes are the same.
  return std::memcmp(page.data(), page.data() + 1, kPageSize - 1) == 0;
}

}  // namespace samepage
