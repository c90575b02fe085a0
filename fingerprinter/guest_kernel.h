#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "core/result.h"
#include "fingerprinter/page_names.h"
#include "fingerprinter/ram_image.h"

namespace samepage::fingerprinter {

/// The Linux kernel (x86-64, 5.10 and later) in a guest's RAM, and what it uses each page for: told
/// from the RAM alone, without symbols, wherever KASLR put it.
///
/// Three things that a kernel has in its own memory are enough. VMCOREINFO, a page of text, says
/// where its page tables and its memory map are. BTF, in its read-only data, gives the layout of
/// its structures. Through the page tables the memory map is read, and in its struct pages the
/// kernel's own record of every page: free, slab, page table, of a file, of a process. Names come
/// from what these point to: the cache of a slab, the path of an inode, the process that owns a
/// mapping.
///
/// A guest can write into its RAM what it likes: names and kinds are its word, and reading them is
/// bounded by the size of its RAM.
///
/// Threads: const methods from one at a time. Lifetime: borrows the image.
class GuestKernel {
 public:
  /// kNotFound: no such kernel is in there, as before it began, or it was built without VMCOREINFO
  /// or BTF; the message says which.
  static Result<GuestKernel> find(const RamImage& ram);

  GuestKernel(GuestKernel&& other) noexcept;
  GuestKernel(const GuestKernel&) = delete;
  GuestKernel& operator=(const GuestKernel&) = delete;
  GuestKernel& operator=(GuestKernel&& other) noexcept;
  ~GuestKernel();

  /// "6.1.0-56-cloud-amd64".
  const std::string& release() const;

  /// Bytes that KASLR moved it; 0 without.
  std::uint64_t offset() const;

  PageNames name_pages() const;

 private:
  class Reader;

  explicit GuestKernel(std::unique_ptr<Reader> reader);

  std::unique_ptr<Reader> reader_;
};

}  // namespace samepage::fingerprinter
