#pragma once

#include <cstdint>
#include <string>
#include <unordered_map>

#include "fingerprinter/kernel_layout.h"
#include "fingerprinter/kernel_memory.h"
#include "fingerprinter/page_names.h"

namespace samepage::fingerprinter {

/// The names behind the pointers of a kernel's struct pages, as words of PageNames. A pointer that
/// leads nowhere has the empty word.
///
/// Threads: one. Lifetime: borrows all that it is given.
class KernelNames {
 public:
  KernelNames(const KernelMemory& memory, const KernelLayout& layout, PageNames& names)
      : memory_(memory), layout_(layout), names_(names) {}

  /// Of a struct kmem_cache: "dentry".
  std::uint32_t slab_cache(std::uint64_t cache);

  /// Of a struct address_space: "ext4:/usr/lib/libc.so.6", by the file system's type and the path
  /// in it; "ext4 metadata 254:0" of a block device; "ext4 inode 8" where no path is known.
  std::uint32_t file(std::uint64_t mapping);

  /// Of a struct anon_vma: "nginx".
  std::uint32_t process(std::uint64_t anonymous);

 private:
  std::uint32_t word(const std::string& text);
  template <class Describe>
  std::uint32_t once(std::uint64_t pointer, Describe describe);
  std::string describe_file(std::uint64_t mapping) const;
  std::string describe_process(std::uint64_t anonymous) const;
  std::string path(std::uint64_t entry) const;
  std::uint64_t at(std::uint64_t pointer, std::size_t offset) const {
    return memory_.u64(pointer + offset).value_or(0);
  }

  const KernelMemory& memory_;
  const KernelLayout& layout_;
  PageNames& names_;
  std::unordered_map<std::uint64_t, std::uint32_t> by_pointer_;
  std::unordered_map<std::string, std::uint32_t> by_text_;
};

}  // namespace samepage::fingerprinter
