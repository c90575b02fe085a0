#pragma once

#include <cstddef>
#include <span>
#include <vector>

#include <zstd.h>

#include "core/byte_reader.h"
#include "core/byte_writer.h"
#include "core/handle.h"
#include "core/result.h"
#include "migrator/stream_slab.h"

namespace samepage::migrator {

/// Sends bytes as they are: see BytePacker::pack().
inline constexpr int kPackNothing = 0;

/// Writes bytes to a message, compressed with zstd when that pays and as they are when not. The
/// form is in docs/formats/migrator.md. Keeps buffers from one call to the next.
/// Threads: one at a time.
class BytePacker {
 public:
  BytePacker();

  /// `zstd_level`: 1 (fast) to 19; negative levels are faster still; kPackNothing.
  /// Returns whether the bytes were compressed.
  bool pack(std::span<const std::byte> bytes, int zstd_level, ByteWriter& message);

  /// The same with the message's front in `head` and the bytes in `tail`, of which it uses as many
  /// as it returns; `tail` has room for packed_bytes_max() of them.
  struct Packed {
    std::size_t size = 0;
    bool packed = false;
  };
  Packed pack(std::span<const std::byte> bytes, int zstd_level, ByteWriter& head,
              std::span<std::byte> tail);
  static std::size_t packed_bytes_max(std::size_t bytes) { return ZSTD_compressBound(bytes); }

  /// What comes before `size` bytes that follow as they are.
  static void announce_plain(std::size_t size, ByteWriter& message);

 private:
  Handle<ZSTD_CCtx, ZSTD_freeCCtx> zstd_;
  SlabScratch packed_;
};

/// Reads what BytePacker wrote. Threads: one at a time.
class ByteUnpacker {
 public:
  ByteUnpacker();

  /// The bytes, until the next call or the end of the message's. kCorrupt: they are damaged, or
  /// more than `size_max`. Reserves no more memory than that, whatever the message says.
  Result<std::span<const std::byte>> unpack(ByteReader& message, std::size_t size_max);

 private:
  Handle<ZSTD_DCtx, ZSTD_freeDCtx> zstd_;
  SlabScratch plain_;
};

}  // namespace samepage::migrator
