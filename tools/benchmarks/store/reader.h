#pragma once

#include <functional>
#include <memory>
#include <span>
#include <string>

#include "core/result.h"
#include "tools/benchmarks/store/read_set.h"

namespace samepage::bench {

/// One client of a store or of one of its peers, with a connection of its own.
/// Threads: one at a time.
class Reader {
 public:
  virtual ~Reader() = default;

  /// Reads all chunks, at most `depth` at a time, and calls `done` with the time that each took.
  /// Returns the bytes that were moved.
  using Done = std::function<void(double microseconds)>;
  virtual Result<std::uint64_t> read(std::span<const Chunk> chunks, std::size_t depth,
                                     const Done& done) = 0;
};

using MakeReader = std::function<Result<std::unique_ptr<Reader>>()>;

/// memcached over its UNIX socket: chunks are keys "c<size>-<offset>"; multigets of `depth` keys.
Result<std::unique_ptr<Reader>> open_memcached(const std::string& socket);

/// Puts an image's chunks into memcached.
Result<void> fill_memcached(const std::string& socket, const std::string& image,
                            std::span<const Chunk> chunks);

/// An NBD server on a UNIX socket. `writes`: chunks are written instead, and flushed at the end.
Result<std::unique_ptr<Reader>> open_nbd(const std::string& socket, bool writes);

/// A copy of the whole file, data only, into a file without a name in `folder`, however little of
/// it is read afterwards. The chunks are ignored.
/// `is_durable`: and flushed, as a copy on a disk is.
Result<std::unique_ptr<Reader>> open_full_copy(const std::string& image, const std::string& folder,
                                               bool is_durable);

}  // namespace samepage::bench
