#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "fingerprinter/fingerprint.h"
#include "fingerprinter/hash_counts.h"
#include "fingerprinter/page_scanner.h"

namespace samepage::fingerprinter {

/// What each page of one guest's RAM held when it was looked at last, and the fingerprint of that,
/// kept up to date at a cost that follows the pages that changed. Takes about 0.6 % of the RAM.
///
/// A page whose content was another one when it was looked at before is *unsettled*: KSM would not
/// merge it, so the fingerprint counts it apart until it is seen unchanged.
///
/// Threads: none of its own.
class Census {
 public:
  explicit Census(std::uint64_t pages);

  /// Pages were looked at: `looked_at` are the runs, rising, and `found` the scan of those that
  /// hold data. Of the others, the unsettled ones are known to be as they were: they settle.
  void take(std::span<const PageRun> looked_at, const Scan& found);

  /// These pages hold nothing (any more). Says of how many that is news.
  std::uint64_t forget(std::span<const PageRun> absent);

  /// `bytes` as for Fingerprint::of(). The shape of the sketch stays, so that the next one is a
  /// small delta, until the guest has become another size.
  Fingerprint fingerprint(std::size_t bytes = 0);

  bool has_unsettled() const { return !unsettled_.empty(); }

  /// The unsettled pages, rising.
  std::vector<PageRun> unsettled() const;

 private:
  /// A page's content: nothing, zeros, or a hash (0 and 1 as hashes are taken for 2).
  using Content = std::uint64_t;
  static constexpr Content kAbsent = 0;
  static constexpr Content kZero = 1;

  void put(std::uint64_t page, Content now);
  void count(Content content);
  void discount(Content content);
  void mark(PageHash hash, bool there);
  void build_sketch(Sketch::Shape shape);

  std::vector<Content> contents_;
  std::vector<bool> is_unsettled_;
  std::vector<std::uint64_t> unsettled_;  ///< Pages, rising.
  HashCounts counts_;
  std::uint64_t zero_ = 0;
  std::uint64_t settled_ = 0;  ///< Pages in counts_.
  std::uint64_t changing_ = 0;

  /// A counting Bloom filter (Fan et al. 2000): distinct hashes in each cell of the sketch; one
  /// that has reached the most stays there until the sketch is built anew.
  std::optional<Sketch> sketch_;
  std::vector<std::uint8_t> in_cell_;
};

}  // namespace samepage::fingerprinter
