#include "fingerprinter/page_names.h"

#include <array>

namespace samepage::fingerprinter {

std::string_view name_of(PageKind kind) {
  static constexpr std::array<std::string_view, kPageKinds> kNames = {
      "unknown",      "other kernel memory",
      "kernel text",  "kernel read-only data",
      "kernel data",  "boot-time memory",
      "memory map",   "page tables",
      "log buffer",   "module text",
      "module data",  "slab",
      "kernel stack", "vmalloc",
      "page cache",   "shared memory",
      "processes",    "free (stale)",
      "firmware"};
  return kNames[static_cast<std::size_t>(kind)];
}

}  // namespace samepage::fingerprinter
