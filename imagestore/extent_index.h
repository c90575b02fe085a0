#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <unordered_map>
#include <vector>

#include "core/result.h"
#include "imagestore/extent.h"

namespace samepage::imagestore {

/// What the first page of an arena says about the rest (docs/formats/imagestore.md, "Arena").
struct ArenaGeometry {
  std::uint64_t instance = 0;  ///< Random; an arena that was made anew has another.
  std::uint64_t buckets = 0;
  std::uint64_t index_offset = 0;
  std::uint64_t data_offset = 0;
  std::uint64_t data_bytes = 0;

  std::uint64_t bytes() const { return data_offset + data_bytes; }
};

inline constexpr std::size_t kArenaHeaderBytes = 16384;
inline constexpr std::size_t kIndexEntryBytes = 64;
inline constexpr std::size_t kBucketEntries = 4;
inline constexpr std::size_t kBucketBytes = kBucketEntries * kIndexEntryBytes;

/// Writes kArenaHeaderBytes.
void encode_geometry(const ArenaGeometry& geometry, std::span<std::byte> header);

/// kCorrupt: no arena of ours, or sizes that contradict each other.
Result<ArenaGeometry> decode_geometry(std::span<const std::byte> header);

/// Where an extent's object lies in an arena.
struct IndexEntry {
  ObjectName name;
  std::uint64_t offset = 0;  ///< From the arena's beginning.
  std::uint32_t bytes = 0;
  std::uint8_t pages = 0;
  bool is_compressed = false;
  std::uint64_t checksum = 0;  ///< extent_checksum() of the object.

  friend bool operator==(const IndexEntry&, const IndexEntry&) = default;
};

using EntryBytes = std::array<std::byte, kIndexEntryBytes>;

/// With a checksum under the arena's instance, so that a torn, stale or damaged entry is none.
EntryBytes encode_entry(const IndexEntry& entry, const ArenaGeometry& geometry);

/// None when the bytes are no entry of this arena, or it points outside of the data.
std::optional<IndexEntry> decode_entry(std::span<const std::byte> bytes,
                                       const ArenaGeometry& geometry);

/// The two buckets, as offsets from the arena's beginning, in one of which `name` is if anywhere.
/// Names are keyed digests, so their own bytes are the hash functions.
std::array<std::uint64_t, 2> bucket_offsets(const ObjectName& name, const ArenaGeometry& geometry);

/// Finds `name` in the bytes of a bucket.
std::optional<IndexEntry> find_in_bucket(std::span<const std::byte> bucket, const ObjectName& name,
                                         const ArenaGeometry& geometry);

/// The server's side of an arena's index: two-choice buckets of four, never moved about, so that a
/// reader without a lock finds an entry in one batch of two reads (the look-up of Pilaf, Mitchell
/// et al. 2013, with displacement left out: the arena is a cache, and a full pair of buckets gives
/// up its oldest entry).
///
/// Invariant: what readers see are whole entries of extents that are readable, or bytes that no
/// reader takes for an entry. Threads: one writer; readers anywhere. Lifetime: borrows `memory`.
class ExtentIndex {
 public:
  /// `memory` is the whole arena.
  ExtentIndex(const ArenaGeometry& geometry, std::span<std::byte> memory);

  /// Returns the entry that had to give way, if one had to. Replaces an entry of the same name.
  std::optional<IndexEntry> insert(const IndexEntry& entry);
  void erase(const ObjectName& name);
  std::optional<IndexEntry> find(const ObjectName& name) const;

  /// Writes the entry again from the server's own knowledge, should its bytes be damaged.
  void restore(const ObjectName& name);

  std::size_t size() const { return places_.size(); }

 private:
  struct Place {
    std::uint64_t offset = 0;
    std::uint64_t age = 0;
    IndexEntry entry;
  };

  std::uint64_t choose(const ObjectName& name) const;
  void write(std::uint64_t offset, const IndexEntry& entry);
  void wipe(std::uint64_t offset);

  ArenaGeometry geometry_;
  std::span<std::byte> memory_;
  std::unordered_map<ObjectName, Place> places_;
  std::unordered_map<std::uint64_t, ObjectName> taken_;  ///< By the entry's offset.
  std::uint64_t age_ = 0;
};

}  // namespace samepage::imagestore
