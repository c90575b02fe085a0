#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>

#include "core/page_digest.h"
#include "core/page_hash.h"
#include "core/result.h"
#include "core/sharing_domain.h"
#include "fingerprinter/bloom_filter.h"
#include "fingerprinter/page_scanner.h"
#include "pagecache/page_source.h"

namespace samepage::pagecache {

struct Options {
  std::size_t pages_max = 64U << 20U;  ///< Entries of the index: at most 24 bytes each.
  std::size_t filter_bytes_max = 16U
                                 << 20U;  ///< Of filter(): 1 % false positives up to 14 M pages.
};

struct SourceId {
  std::uint32_t value = 0;

  friend auto operator<=>(const SourceId&, const SourceId&) = default;
};

/// Where on this host a page with a given digest is, for one sharing domain.
///
/// Invariant: a page that find() hands out has the digest that it was asked by, whatever its source
/// did meanwhile: bytes are copied to the caller's buffer, digested, compared. The index holds
/// hashes and positions, never page data, and its entries are only hints.
///
/// Threads: every method may be called from any thread; a reading source blocks only its reader.
class PageCache final {
 public:
  /// kInvalid: `pages_max` is zero.
  static Result<std::unique_ptr<PageCache>> create(const Options& options,
                                                   const SharingDomain& domain);
  ~PageCache();
  PageCache(const PageCache&) = delete;
  PageCache& operator=(const PageCache&) = delete;

  /// Indexes what a scan found in `source`. Pages beyond `pages_max` are left out, and of pages
  /// that have the same hash all but the first few. After a rescan: remove(), then add() again.
  SourceId add(std::unique_ptr<PageSource> source,
               std::span<const fingerprinter::ScannedPage> pages);

  /// Forgets the source's pages; no effect when it is unknown. The source itself is destroyed now,
  /// or at the end of the last find() that is reading from it.
  void remove(SourceId source);

  /// Copies the page named `digest` into `page`, trying each indexed place of `hash`.
  /// kNotFound: no place on this host holds it (any more); `page` then holds garbage.
  Result<void> find(const PageDigest& digest, PageHash hash, PageBuffer page);

  /// A membership filter over every indexed hash, for a migration's source to ask before it refers
  /// to a page.
  fingerprinter::BloomFilter filter() const;

  /// Indexed places.
  std::size_t size() const;

 private:
  class Impl;
  explicit PageCache(std::unique_ptr<Impl> impl);

  std::unique_ptr<Impl> impl_;
};

}  // namespace samepage::pagecache
