#pragma once

#include <array>
#include <compare>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <string>

#include "core/page.h"

namespace samepage {

/// The name that proves a page's content: BLAKE3-256 keyed with the secret of a sharing domain.
/// Bytes taken from anywhere but their owner are copied to a private buffer, digested, compared
/// with the expected digest, and only then used. A guest does not know the key, so it cannot make
/// two pages with one digest.
struct PageDigest {
  std::array<std::byte, 32> bytes{};

  friend auto operator<=>(const PageDigest&, const PageDigest&) = default;
};

/// The secret key of a sharing domain's digests, or of one migration's message authentication.
struct DigestKey {
  std::array<std::byte, 32> bytes{};
};

PageDigest digest_page(PageView page, const DigestKey& key);

/// The digests of whole pages that lie one after the other: `pages` holds digests.size() of them.
/// Two to three times as fast as one page at a time, because the vector unit digests the same part
/// of up to 16 pages at once.
void digest_pages(std::span<const std::byte> pages, const DigestKey& key,
                  std::span<PageDigest> digests);

/// Lower-case hexadecimal, 64 characters.
std::string to_hex(const PageDigest& digest);

/// Authenticates a growing byte stream: keyed BLAKE3 of everything fed so far.
/// Threads: one at a time. Copyable; a copy goes on from the same state.
class StreamMac {
 public:
  explicit StreamMac(const DigestKey& key);

  void update(std::span<const std::byte> bytes);

  /// The digest of all bytes so far; feeding may go on afterwards.
  PageDigest current() const;

 private:
  // blake3_hasher, kept opaque so that users need no BLAKE3 header; checked in the source.
  alignas(8) std::array<std::byte, 1920> state_{};
};

}  // namespace samepage

template <>
struct std::hash<samepage::PageDigest> {
  std::size_t operator()(const samepage::PageDigest& digest) const noexcept;
};
