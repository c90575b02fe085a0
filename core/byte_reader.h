#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

#include "core/result.h"

namespace samepage {

/// Takes numbers and bytes from untrusted input, front to back, never past its end. The encoding
/// is ByteWriter's. Borrows the bytes.
/// Errors: every method says kCorrupt when the input ends too early or is not canonical.
class ByteReader {
 public:
  explicit ByteReader(std::span<const std::byte> bytes) : bytes_(bytes) {}

  Result<std::uint8_t> u8();
  Result<std::uint32_t> u32();
  Result<std::uint64_t> u64();

  /// LEB128 of at most 10 bytes. kCorrupt also when the value exceeds `max`.
  Result<std::uint64_t> varint(std::uint64_t max = UINT64_MAX);

  /// The next `size` bytes, borrowed from the input.
  Result<std::span<const std::byte>> raw(std::size_t size);

  /// A varint length of at most `size_max`, then that many bytes.
  Result<std::string> text(std::size_t size_max);

  std::size_t remaining() const { return bytes_.size(); }
  bool at_end() const { return bytes_.empty(); }

 private:
  template <class T>
  Result<T> fixed();

  std::span<const std::byte> bytes_;
};

}  // namespace samepage
