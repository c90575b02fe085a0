#pragma once

#include <cstddef>
#include <cstdint>

#include "core/byte_writer.h"
#include "core/page.h"
#include "migrator/batch.h"

namespace samepage::migrator {

// How a batch's operations are written, for its encoder and its decoder. An operation is a varint
// of its count, a bit that says that its one record has its header in a literal before, and its
// kind.
inline constexpr unsigned kKindBits = 4;
inline constexpr std::uint64_t kBareBit = 8;
inline constexpr std::uint64_t kKindMask = 7;

// QEMU's records: a page without a name, and a zero page. Their flags say what follows the header.
inline constexpr std::size_t kHeaderBytes = 8;
inline constexpr std::size_t kPageRecordBytes = kHeaderBytes + kPageSize;
inline constexpr std::size_t kZeroRecordBytes = kHeaderBytes + 1;
inline constexpr std::uint64_t kPageFlags = 0x28;
inline constexpr std::uint64_t kZeroFlags = 0x22;

inline bool has_place(BatchKind kind) {
  return kind == BatchKind::kCopies || kind == BatchKind::kDeltas;
}

/// What one of an operation's count stands for in the stream, its header included.
inline std::size_t stream_bytes_of(BatchKind kind) {
  if (kind == BatchKind::kLiteral) return 1;
  return kind == BatchKind::kZeros ? kZeroRecordBytes : kPageRecordBytes;
}

/// What the next record has when memory is sent page by page: numbers are written as the distance
/// from it, which nearly always is zero.
struct Expected {
  std::uint64_t page = 0;
  std::uint64_t place = 0;
};

/// What comes, behind the header, before a stretch of `size` bytes that is one literal as it is.
inline void write_plain_front(std::size_t size, ByteWriter& message) {
  message.varint(size << kKindBits | static_cast<std::uint64_t>(BatchKind::kLiteral));
  message.varint(0);
  BytePacker::announce_plain(size, message);
}

/// Small numbers for small distances in both directions, modulo 2^64.
inline std::uint64_t zigzag(std::uint64_t distance) {
  return distance << 1U ^ (0 - (distance >> 63U));
}
inline std::uint64_t unzigzag(std::uint64_t code) {
  return code >> 1U ^ (0 - (code & 1U));
}

}  // namespace samepage::migrator
