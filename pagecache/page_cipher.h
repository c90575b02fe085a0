#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>

#include "core/page.h"
#include "core/result.h"

namespace samepage::pagecache {

/// Encrypts guests' pages before they touch a disk: AES-256-XTS with the page's number as its
/// sector, under a random key that is nowhere but in this object's locked memory and is wiped with
/// it. There is no integrity in it: who reads a page verifies it by its digest.
/// Threads: every method may be called from any thread.
class PageCipher final {
 public:
  /// kIo: no randomness, no lockable memory, or no such cipher here.
  static Result<std::unique_ptr<PageCipher>> create();
  ~PageCipher();
  PageCipher(const PageCipher&) = delete;
  PageCipher& operator=(const PageCipher&) = delete;

  /// `from` and `to` are whole pages, as many of each, numbered from `first` on.
  Result<void> encrypt(std::uint64_t first, std::span<const std::byte> from,
                       std::span<std::byte> to) const;
  Result<void> decrypt(std::uint64_t first, std::span<std::byte> pages) const;

 private:
  struct Key {
    std::array<unsigned char, 64> bytes{};
  };
  class Pass;

  PageCipher() = default;

  std::unique_ptr<Key> key_;
};

}  // namespace samepage::pagecache
