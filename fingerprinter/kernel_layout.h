#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>

#include "core/result.h"
#include "fingerprinter/kernel_types.h"

namespace samepage::fingerprinter {

/// Where in the kernel's structures lies what names its pages: bytes from their begin. What is
/// optional was not in every release, and its lack only costs names.
struct KernelLayout {
  /// kNotFound: the types lack one that is needed; the message says which.
  static Result<KernelLayout> of(const KernelTypes& types);

  struct {
    std::size_t size, flags, mapping, type, references, compound_head;
  } page{};
  struct {
    std::uint32_t reserved, swap_backed;
    std::optional<std::uint32_t> slab;  ///< A bit of the flags; a type of page since Linux 6.10.
  } flag{};
  std::optional<std::uint32_t> buddy_type, table_type, slab_type;  ///< Since Linux 6.11.
  std::size_t section_size = 0, section_map = 0;
  std::size_t slab_cache = 0, cache_name = 0;
  struct {
    std::size_t host, superblock, number, device, names;
  } inode{};
  struct {
    std::size_t id, type, type_name;
  } superblock{};
  struct {
    std::size_t parent, name, alias;
  } entry{};
  struct {
    std::size_t tree, link, area, memory, name;
    std::optional<std::size_t> owner;
  } anonymous{};
  struct {
    std::size_t data, size_bits;
  } log{};
};

}  // namespace samepage::fingerprinter
