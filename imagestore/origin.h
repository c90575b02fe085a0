#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
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

struct StoredObject {
  ObjectName name;
  std::uint64_t stored_bytes = 0;
  std::optional<std::chrono::sys_seconds> buried_at = {};  ///< See Origin::bury().
};

struct SweepReport {
  std::uint64_t objects = 0;  ///< Removed.
  std::uint64_t bytes = 0;    ///< That they took.
};

/// Where the store's objects (extents, manifest nodes, versions) are durable. DirOrigin in a folder
/// of this host, RadosOrigin in a Ceph pool, a fake in tests/fakes/.
///
/// Invariant: bytes that get() hands out are the bytes that were put, by checksum; whoever needs
/// proof against a forger digests what is inside. Objects are never changed.
///
/// Nobody sees an object before what it leads to, and none is left behind without it: an object
/// that leads to others (object_format.h) comes after them and goes before them, whoever is killed
/// when.
///
/// Objects go in two steps: buried, then, a grace time later, swept. Who builds on an object that
/// was there before puts or keeps it, and may rely on it for as long as the grace time lasts.
///
/// Threads: one at a time; open an origin per thread. Any number of them, in any process, write at
/// the same time.
/// Errors: kIo: the disk or the database refused (the message says which; a full disk is said so).
class Origin {
 public:
  using Visit = std::function<Result<void>(const StoredObject&)>;

  virtual ~Origin() = default;

  /// Adds an object; keep()s it when the name is there already. The object can be read at once
  /// through this origin, but counts as stored, and is seen by others, only after sync().
  /// kInvalid: opened for reading only, or larger than kObjectBytesMax.
  virtual Result<void> put(const ObjectName& name, std::span<const std::byte> bytes) = 0;

  /// The next sync() says whether the object is there, and digs it up when it is buried.
  virtual Result<void> keep(const ObjectName& name) = 0;

  /// Makes everything put so far durable. kUnavailable: a kept object was swept; put it anew. After
  /// an error: discard().
  virtual Result<void> sync() = 0;

  /// Takes back everything put since the last sync(), and the room that it took where nobody else
  /// has built on it; sweeping frees the rest.
  virtual Result<void> discard() = 0;

  /// kNotFound: no such object. kCorrupt: its bytes do not match their checksum; the message names
  /// the place.
  virtual Result<std::vector<std::byte>> get(const ObjectName& name) = 0;

  virtual Result<bool> contains(const ObjectName& name) = 0;

  /// Calls `visit` for every stored object, in no order, until it fails.
  virtual Result<void> list(const Visit& visit) = 0;

  /// Marks objects as of no use, durably; those buried before keep their time. They are served
  /// until they are swept.
  virtual Result<void> bury(std::span<const ObjectName> names, std::chrono::sys_seconds at) = 0;

  /// Removes those objects that have been buried at or before `until` and not been dug up since;
  /// whatever was buried earlier goes before what was buried later.
  virtual Result<SweepReport> sweep(std::span<const ObjectName> names,
                                    std::chrono::sys_seconds until) = 0;

  /// Where an object lies, for messages: "pack 12 at 40960".
  virtual std::string place(const ObjectName& name) = 0;
};

}  // namespace samepage::imagestore
