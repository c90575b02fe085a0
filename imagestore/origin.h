#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "core/page_digest.h"
#include "core/result.h"

namespace samepage::imagestore {

/// The name of an immutable object: the keyed digest of what it means (docs/formats/imagestore.md),
/// so that one name never stands for two contents.
using ObjectName = PageDigest;

/// The largest object: an extent of 128 KiB that did not compress, with its header.
inline constexpr std::size_t kObjectBytesMax = 160U << 10U;

/// Where the store's objects (extents, manifest nodes, versions) are durable. DirOrigin in a folder
/// of this host, a fake in tests/fakes/.
///
/// Invariant: bytes that get() hands out are the bytes that were put, by checksum; whoever needs
/// proof against a forger digests what is inside. Objects are never changed.
///
/// Threads: one at a time; open an origin per thread.
/// Errors: kIo: the disk or the database refused (the message says which; a full disk is said so).
class Origin {
 public:
  virtual ~Origin() = default;

  /// Adds an object; does nothing when the name is there already. The object can be read at once
  /// through this origin, but counts as stored, and is seen by others, only after sync().
  /// kInvalid: opened for reading only, or larger than kObjectBytesMax.
  virtual Result<void> put(const ObjectName& name, std::span<const std::byte> bytes) = 0;

  /// Makes everything put so far durable. After an error: discard().
  virtual Result<void> sync() = 0;

  /// Takes back everything put since the last sync(), and the room that it took.
  virtual Result<void> discard() = 0;

  /// kNotFound: no such object. kCorrupt: its bytes do not match their checksum; the message names
  /// the place.
  virtual Result<std::vector<std::byte>> get(const ObjectName& name) = 0;

  virtual Result<bool> contains(const ObjectName& name) = 0;

  /// Calls `visit` for every stored object, in the order of storing, until it fails.
  virtual Result<void> list(
      const std::function<Result<void>(const ObjectName& name, std::uint64_t stored_bytes)>&
          visit) = 0;

  /// Where an object lies, for messages: "pack 12 at 40960".
  virtual std::string place(const ObjectName& name) = 0;
};

}  // namespace samepage::imagestore
