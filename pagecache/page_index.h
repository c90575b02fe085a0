#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "core/mutex.h"
#include "core/page_hash.h"

namespace samepage::pagecache {

/// A page of a source: the source's slot in the cache (24 bits), the source's page number (40
/// bits).
struct Place {
  std::uint32_t slot = 0;
  std::uint64_t page = 0;
};

/// Page hash -> places: open addressing with linear probing in entries of 16 bytes, kept at most
/// 85 % and, after growth, at least 70 % full: 19 to 23 bytes a page. It is cut into shards by the
/// hash's first bits, so that growing is short, needs little extra memory, and lookups seldom meet
/// on a lock.
///
/// Invariant: a hash has at most kPlacesMax places, at most kPlacesPerSlotMax of them in one
/// source, so a page content that fills half a guest makes no lookup long and hides no other
/// source. Threads: every method may be called from any thread.
class PageIndex {
 public:
  static constexpr std::size_t kPlacesMax = 4;
  static constexpr std::size_t kPlacesPerSlotMax = 2;
  static constexpr std::uint32_t kSlotsMax = (1U << 24U) - 1;
  static constexpr std::uint64_t kPagesMax = std::uint64_t{1} << 40U;

  /// False, and nothing done, when `place` is beyond the limits above or one place too many.
  bool insert(PageHash hash, Place place);

  /// Fills `places` with the hash's places, the oldest first, and returns how many there are.
  std::size_t find(PageHash hash, std::array<Place, kPlacesMax>& places) const;

  /// Forgets every place in `slot`; returns how many there were.
  std::size_t erase(std::uint32_t slot);

  void for_each_hash(const std::function<void(PageHash)>& visit) const;

  /// Memory held by the entries.
  std::size_t bytes() const;

 private:
  struct Entry {
    std::uint64_t hash = 0;
    std::uint64_t place = kEmpty;
  };
  static constexpr std::uint64_t kEmpty = UINT64_MAX;

  class Table {
   public:
    bool insert(const Entry& entry);
    std::size_t find(std::uint64_t hash, std::array<Place, kPlacesMax>& places) const;
    std::size_t erase(std::uint32_t slot);
    std::span<const Entry> entries() const { return entries_; }
    std::size_t bytes() const { return entries_.capacity() * sizeof(Entry); }

   private:
    std::size_t home(std::uint64_t hash) const;
    std::size_t after(std::size_t position) const;
    void put(const Entry& entry);
    void rebuild(std::size_t used);

    std::vector<Entry> entries_;
    std::size_t used_ = 0;
  };

  struct Shard {
    mutable Mutex mutex;
    Table table GUARDED_BY(mutex);
  };
  static constexpr unsigned kShardBits = 8;

  Shard& shard(PageHash hash) { return shards_[hash.value >> (64U - kShardBits)]; }
  const Shard& shard(PageHash hash) const { return shards_[hash.value >> (64U - kShardBits)]; }

  std::array<Shard, 1U << kShardBits> shards_;
};

}  // namespace samepage::pagecache
