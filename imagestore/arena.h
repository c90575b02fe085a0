#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <memory>
#include <span>
#include <unordered_map>
#include <vector>

#include "core/clock.h"
#include "core/fd.h"
#include "core/result.h"
#include "imagestore/extent_index.h"

namespace samepage::imagestore {

/// An extent that was written into a reserved region, to be published. The offset counts from the
/// region's beginning.
struct WrittenExtent {
  ObjectName name;
  std::uint64_t offset = 0;
  std::uint32_t bytes = 0;
};

/// A store node's memory: extents as objects, and an index of them that is laid out for readers who
/// copy bytes and ask nobody (docs/formats/imagestore.md, "Arena").
///
/// The data is a ring that is filled front to back: regions are reserved at its head, written by
/// whoever was granted them, then published. The oldest region gives way first; since readers leave
/// no trace, a cache that is read one-sidedly cannot know better. Its entries go out of the index
/// one gap ahead of the bytes' being written over, and a reader that comes later still sees that
/// the digest does not fit.
///
/// Invariant: published bytes do not change until their entries are gone and the head comes round.
/// The memfd is sealed: its size stays, and nobody else can map it writable. Losing it loses
/// nothing. Threads: one at a time; readers anywhere.
class Arena {
 public:
  struct Options {
    std::uint64_t data_bytes = 256U << 20U;
    std::uint64_t extent_bytes_mean = 32U << 10U;  ///< Sizes the index: 16/10 as many entries.
    std::uint64_t gap_bytes = 1U << 20U;  ///< Kept readable between the index's end and the head.
    std::uint64_t region_bytes_max = 16U << 20U;

    /// Of 2 MiB (vm.nr_hugepages), when that many are free; else ordinary ones. Clients that map
    /// the arena then take no page faults.
    bool use_huge_pages = false;
  };

  struct Region {
    std::uint64_t id = 0;
    std::uint64_t offset = 0;  ///< From the arena's beginning.
    std::uint64_t bytes = 0;
  };

  struct Counts {
    std::uint64_t extents = 0;
    std::uint64_t extent_bytes = 0;
    std::uint64_t evicted = 0;
    std::uint64_t regions_open = 0;
  };

  /// kIo: the system refuses so much memory. kInvalid: the sizes cannot be.
  static Result<std::unique_ptr<Arena>> create(const Options& options);
  ~Arena();
  Arena(const Arena&) = delete;
  Arena& operator=(const Arena&) = delete;

  const ArenaGeometry& geometry() const { return geometry_; }
  std::span<std::byte> memory() { return memory_; }
  int descriptor() const { return memfd_.get(); }
  bool has_huge_pages() const { return has_huge_pages_; }

  /// Makes room for `bytes`. A region that is neither published nor given up by `expires` counts as
  /// given up. kInvalid: more than region_bytes_max. kUnavailable: regions that others write still
  /// are in the way; try later.
  Result<Region> reserve(std::uint64_t bytes, Deadline expires, Deadline now);

  /// Puts extents of a region into the index. The caller has verified them, and nobody writes to
  /// the region any more. Extents that the arena has already are left out. kNotFound: the region
  /// is gone. kInvalid: an extent lies outside of it or is none; nothing was published.
  Result<std::size_t> publish(std::uint64_t region, std::span<const IndexEntry> entries);

  /// Gives up a region that was not published.
  void release(std::uint64_t region);

  std::optional<IndexEntry> find(const ObjectName& name) const { return index_->find(name); }
  std::span<const std::byte> object(const IndexEntry& entry) const {
    return memory_.subspan(entry.offset, entry.bytes);
  }

  /// Takes an extent out of the index.
  void retract(const ObjectName& name);

  /// Mends the index entry of `name`, should its bytes be damaged.
  void restore(const ObjectName& name) { index_->restore(name); }

  Counts counts() const;

 private:
  struct Placed {
    Region region;
    bool is_open = true;
    Deadline expires;
    std::vector<ObjectName> names;
  };

  Arena(const Options& options, const ArenaGeometry& geometry, Fd memfd,
        std::span<std::byte> memory);
  static Result<std::unique_ptr<Arena>> map(const Options& options, const ArenaGeometry& geometry,
                                            bool with_huge_pages);
  Result<void> make_way(std::uint64_t begin, std::uint64_t end, Deadline now);
  void evict(const Placed& placed);
  Placed* find_region(std::uint64_t region);

  Options options_;
  ArenaGeometry geometry_;
  Fd memfd_;
  std::span<std::byte> memory_;
  bool has_huge_pages_ = false;
  std::unique_ptr<ExtentIndex> index_;
  std::deque<Placed> placed_;  ///< In the order of the ring, oldest first.
  std::uint64_t head_ = 0;     ///< From the data's beginning.
  std::uint64_t next_region_ = 1;
  std::uint64_t extent_bytes_ = 0;
  std::uint64_t evicted_ = 0;
};

/// An object's index entry, when the object is what its name says. kCorrupt: it is not.
Result<IndexEntry> describe_object(const ObjectName& name, std::span<const std::byte> bytes,
                                   const DomainKeys& keys);

}  // namespace samepage::imagestore
