#pragma once

#include <cstddef>
#include <span>
#include <vector>

#include <zstd.h>

#include "core/byte_reader.h"
#include "core/byte_writer.h"
#include "core/handle.h"
#include "core/result.h"

namespace samepage::migrator {

/// Writes bytes to a message, compressed with zstd when that pays and as they are when not. The
/// form is in docs/formats/migrator.md. Keeps buffers from one call to the next.
/// Threads: one at a time.
class BytePacker {
 public:
  /// `zstd_level`: 1 (fast) to 19; negative levels are faster still.
  explicit BytePacker(int zstd_level);

  void pack(std::span<const std::byte> bytes, ByteWriter& message);

 private:
  int zstd_level_;
  Handle<ZSTD_CCtx, ZSTD_freeCCtx> zstd_;
  std::vector<std::byte> packed_;
};

/// Reads what BytePacker wrote. Threads: one at a time.
class ByteUnpacker {
 public:
  ByteUnpacker();

  /// kCorrupt: the bytes are damaged, or unpack to another size than `size`. Reserves no more
  /// memory than `size`, whatever the message says.
  Result<std::vector<std::byte>> unpack(ByteReader& message, std::size_t size);

 private:
  Handle<ZSTD_DCtx, ZSTD_freeDCtx> zstd_;
};

}  // namespace samepage::migrator
