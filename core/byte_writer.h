#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string_view>
#include <utility>
#include <vector>

namespace samepage {

/// Appends fixed-width little-endian numbers, LEB128 varints and raw bytes to a growing buffer: the
/// encoding of every wire and disk format that is ours (docs/formats.md). ByteReader is its
/// inverse.
class ByteWriter {
 public:
  void u8(std::uint8_t value) { bytes_.push_back(std::byte{value}); }
  void u32(std::uint32_t value) { fixed(value); }
  void u64(std::uint64_t value) { fixed(value); }

  void varint(std::uint64_t value) {
    while (value >= 0x80) {
      u8(static_cast<std::uint8_t>(value | 0x80U));
      value >>= 7U;
    }
    u8(static_cast<std::uint8_t>(value));
  }

  void raw(std::span<const std::byte> bytes) {
    bytes_.insert(bytes_.end(), bytes.begin(), bytes.end());
  }

  /// A varint length, then the bytes.
  void text(std::string_view value) {
    varint(value.size());
    raw(std::as_bytes(std::span(value)));
  }

  std::size_t size() const { return bytes_.size(); }
  std::span<const std::byte> view() const { return bytes_; }
  std::vector<std::byte> take() { return std::move(bytes_); }
  void clear() { bytes_.clear(); }

 private:
  template <class T>
  void fixed(T value) {
    for (std::size_t shift = 0; shift < sizeof(T) * 8; shift += 8) {
      u8(static_cast<std::uint8_t>(value >> shift));
    }
  }

  std::vector<std::byte> bytes_;
};

}  // namespace samepage
