#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "core/page_digest.h"
#include "core/page_hash.h"
#include "core/result.h"
#include "core/sharing_domain.h"
#include "fingerprinter/bloom_filter.h"
#include "fingerprinter/page_scanner.h"
#include "pagecache/page_source.h"

namespace samepage::pagecache {

struct Options {
  std::size_t pages_max = 64U << 20U;  ///< Entries of the index: at most 24 bytes each, checks too.
  std::size_t filter_bytes_max = 16U
                                 << 20U;  ///< Of filter(): 1 % false positives up to 14 M pages.
};

struct SourceId {
  std::uint32_t value = 0;

  friend auto operator<=>(const SourceId&, const SourceId&) = default;
};

/// A page that is looked for by its hash.
struct WantedPage {
  PageHash hash;
  std::uint64_t number =
      0;  ///< Where its own guest has it: a place with this number is tried first.
  PageBuffer to;

  // What find_many() says.
  bool found = false;
  SourceId source;
  std::uint64_t page = 0;  ///< Of the source.
};

/// A page that is looked for where it should lie in a source.
struct PlacedPage {
  std::uint64_t page = 0;
  PageBuffer to;
  bool found = false;  ///< Says read_placed().
};

/// 16 bits of a page's hash, by which a page that has changed is told from one that has not, nearly
/// always. 0 stands for no page.
using PageCheck = std::uint16_t;
PageCheck check_of(PageHash hash);

/// Where on this host a page with a given content is, for one sharing domain.
///
/// The index holds hashes and positions, never page data, and its entries are only hints: whatever
/// a source did meanwhile, bytes are copied to the caller's buffer and looked at there. find() then
/// proves them by their digest. find_many() and read_placed() compare the hash, which tells what
/// has changed and proves nothing: their caller proves what it made of the pages.
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

  /// Copies each page that some indexed place of its hash still holds; of several places one of the
  /// same page number first. Reads of neighbouring pages are joined.
  void find_many(std::span<WantedPage> pages);

  /// Copies each page whose hash still agrees with the source's check of it. No page is found in a
  /// source that is gone.
  void read_placed(SourceId source, std::span<PlacedPage> pages);

  /// The checks of all pages that the source had when it was added, by their numbers, also of those
  /// that have too many places for the index. Empty: the source is gone.
  std::vector<PageCheck> checks(SourceId source) const;

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
