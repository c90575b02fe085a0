#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <utility>

#include "core/result.h"

namespace samepage::imagestore {

/// One byte for every page of a disk, in a file that is mapped shared: what is stored survives the
/// process, kill -9 included, and is seen at once by every other process that maps it. It does not
/// survive the machine: the kernel writes it out when it likes. So the file knows the boot in which
/// it was written, and a map of another boot is empty.
///
/// Threads: any; bytes are atomic. Lifetime: unmapped by the destructor.
class PageMap final {
 public:
  /// Makes the file or opens it. `mark` tells apart what maps are for: one of another mark or size
  /// is begun anew. kIo: the disk refused or is full.
  static Result<PageMap> open(const std::filesystem::path& path, std::uint64_t pages,
                              std::uint64_t mark);

  PageMap(PageMap&& other) noexcept;
  PageMap& operator=(PageMap&&) = delete;
  PageMap(const PageMap&) = delete;
  PageMap& operator=(const PageMap&) = delete;
  ~PageMap();

  /// The file was written since the machine was started; otherwise every byte is 0.
  bool was_kept() const { return was_kept_; }

  std::uint64_t pages() const { return pages_; }
  std::atomic<std::uint8_t>& operator[](std::uint64_t page) const { return bytes_[page]; }

 private:
  PageMap(void* mapped, std::uint64_t pages, bool was_kept);

  void* mapped_;
  std::atomic<std::uint8_t>* bytes_;
  std::uint64_t pages_;
  bool was_kept_;
};

}  // namespace samepage::imagestore
