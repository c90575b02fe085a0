#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "core/clock.h"
#include "core/page.h"
#include "core/page_digest.h"
#include "core/result.h"
#include "imagestore/extent.h"
#include "imagestore/object_format.h"
#include "imagestore/origin.h"

namespace samepage::imagestore {

/// Room for one extent, to be used again and again: an extent's pages arrive here by one copy, and
/// are verified here.
///
/// Invariant: after a fetch that succeeded, digests() have the name that was asked for and every
/// page has its digest, computed here or, in load_trusted(), by whom this host trusts. After one
/// that failed it is empty. Of about 132 KiB: lives on the heap.
class ExtentBuffer {
 public:
  static std::unique_ptr<ExtentBuffer> create() { return std::make_unique<ExtentBuffer>(); }

  ExtentBuffer() {}  // NOLINT(modernize-use-equals-default): not even zeroed.
  ExtentBuffer(const ExtentBuffer&) = delete;
  ExtentBuffer& operator=(const ExtentBuffer&) = delete;

  std::size_t count() const { return count_; }
  std::span<const PageDigest> digests() const { return {digests_.data(), count_}; }
  std::span<const std::byte> pages() const { return {&bytes_[kLeadBytes], count_ * kPageSize}; }
  PageView page(std::size_t slot) const {
    return PageView(&bytes_[kLeadBytes + slot * kPageSize], kPageSize);
  }

  /// The slot of the page with this digest.
  std::optional<std::size_t> find(const PageDigest& digest) const;

  /// Decodes and verifies the bytes of the object `name`. kCorrupt: they are not that extent.
  Result<void> load(const ObjectName& name, std::span<const std::byte> bytes,
                    const DomainKeys& keys);

  /// For readers that put the bytes of an object here themselves: room for one of `pages` pages
  /// that is not compressed, placed so that its pages need not move. kCorrupt: no extent has so
  /// many pages.
  Result<std::span<std::byte>> raw(std::size_t pages);

  /// Verifies what was put into the last raw(), as load().
  Result<void> verify_raw(const ObjectName& name, const DomainKeys& keys);

  /// Copies the bytes of the object `name` here, of `pages` pages and not compressed, out of memory
  /// in which whoever wrote it had verified it; kCorrupt when the copy has another checksum than
  /// theirs, or is no extent. The memory may be written over meanwhile.
  Result<void> load_trusted(const ObjectName& name, std::span<const std::byte> bytes,
                            std::size_t pages, std::uint64_t checksum, const DomainKeys& keys);

  /// The object of what is here, not compressed, for a store node.
  std::vector<std::byte> encode_plain(const DomainKeys& keys) const;

  void clear() { count_ = 0; }

 private:
  static constexpr std::size_t kLeadBytes =
      kPageSize;  // What precedes the pages in an object fits.

  std::span<const std::byte> raw_object() const;
  Result<void> take_apart(const DomainKeys& keys);
  Result<void> verify(const ObjectName& name, const DomainKeys& keys);

  std::size_t count_ = 0;
  std::size_t raw_pages_ = 0;
  std::array<PageDigest, kExtentPagesMax> digests_;
  alignas(kPageSize) std::array<std::byte, kLeadBytes + kExtentPagesMax * kPageSize> bytes_;
};

/// One extent to fetch. The buffer is borrowed until the fetch is done.
struct ExtentFetch {
  std::uint64_t tag = 0;  ///< The caller's own; handed back.
  ObjectName name;
  ExtentBuffer* into = nullptr;
};

/// A fetch that ended, well or not.
struct FetchedExtent {
  std::uint64_t tag = 0;
  Result<void> result;
};

/// Where extents come from: the store's nodes, neighbours, the origin. Many fetches are under way
/// at once and end in any order.
///
/// Invariant: what is delivered is verified (ExtentBuffer); nothing unverified is ever seen by a
/// caller.
/// Threads: one at a time; a thread of its own opens a source of its own.
/// Lifetime: destroying a source drops its fetches; their buffers are then the caller's again.
class ExtentSource {
 public:
  virtual ~ExtentSource() = default;

  /// Begins fetches, all or none. kUnavailable: more than fetches_max() would be under way: poll()
  /// first.
  virtual Result<void> start(std::span<const ExtentFetch> fetches) = 0;

  /// The fetches that ended. Waits for the first until `deadline`; returns none when nothing is
  /// under way or nothing ended by then. A fetch ends with
  /// kNotFound: no home and no origin has it. kCorrupt: every copy is damaged.
  /// kUnavailable: nobody who could have it answers; try again. kTimedOut: it took too long.
  virtual std::vector<FetchedExtent> poll(Deadline deadline) = 0;

  /// Fetches under way.
  virtual std::size_t under_way() const = 0;
  virtual std::size_t fetches_max() const = 0;
};

/// Fetches one extent and waits for it; nothing else may be under way. Errors as poll()'s.
Result<void> fetch_extent(ExtentSource& source, const ObjectName& name, ExtentBuffer& into,
                          Deadline deadline);

/// Extents straight from an origin, in the caller's thread: what a host without a store node uses,
/// and every other source's last resort. Lifetime: borrows the origin.
class OriginExtents final : public ExtentSource {
 public:
  OriginExtents(Origin& origin, const DomainKeys& keys, std::size_t fetches_max = 256)
      : origin_(origin), keys_(keys), fetches_max_(fetches_max) {}

  Result<void> start(std::span<const ExtentFetch> fetches) override;

  /// Reads at least one extent, and goes on until the deadline or until all are read.
  std::vector<FetchedExtent> poll(Deadline deadline) override;

  std::size_t under_way() const override { return waiting_.size(); }
  std::size_t fetches_max() const override { return fetches_max_; }

 private:
  Result<void> fetch(const ExtentFetch& fetch);

  Origin& origin_;
  DomainKeys keys_;
  const std::size_t fetches_max_;
  std::vector<ExtentFetch> waiting_;
};

}  // namespace samepage::imagestore
