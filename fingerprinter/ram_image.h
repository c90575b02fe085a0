#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>

#include "core/fd.h"
#include "core/page.h"
#include "core/result.h"

namespace samepage::fingerprinter {

/// One guest's RAM of one moment, in memory or in a file that nobody changes any more, and where
/// the guest has which page of it: QEMU's machine `pc` puts what does not fit below 3.5 GiB above 4
/// GiB.
///
/// Threads: immutable. Lifetime: owns its mapping of a file; of bytes that were given it, it
/// borrows them.
class RamImage {
 public:
  /// kInvalid: the file's size is no multiple of a page, or zero. kIo: it cannot be mapped.
  static Result<RamImage> map(const Fd& file);

  /// Whole pages, at least one.
  explicit RamImage(std::span<const std::byte> bytes);

  RamImage(RamImage&& other) noexcept;
  RamImage& operator=(RamImage&& other) noexcept;
  RamImage(const RamImage&) = delete;
  RamImage& operator=(const RamImage&) = delete;
  ~RamImage();

  std::size_t pages() const { return bytes_.size() / kPageSize; }
  std::span<const std::byte> bytes() const { return bytes_; }

  /// The page of an index below pages().
  PageView page(std::size_t index) const {
    return bytes_.subspan(index * kPageSize).first<kPageSize>();
  }

  /// The guest's own number of that page: its physical address by 4096.
  std::uint64_t frame_of(std::size_t index) const;

  /// Where the byte of a guest-physical address is in bytes(); none where the guest has no RAM.
  std::optional<std::size_t> offset_of(std::uint64_t physical) const;

 private:
  std::span<const std::byte> bytes_;
  std::size_t low_bytes_ = 0;  ///< Of RAM below 4 GiB.
  bool is_mapped_ = false;
};

}  // namespace samepage::fingerprinter
