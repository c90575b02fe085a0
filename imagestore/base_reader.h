#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "core/clock.h"
#include "core/page.h"
#include "core/result.h"
#include "imagestore/mirror.h"
#include "imagestore/version_source.h"

namespace samepage::imagestore {

/// Reads a version through its mirror: what is not there yet is fetched as whole extents, verified,
/// and kept. Requests for the same extent wait for one fetch. Prefetches go on in the background
/// and let every waiting read pass first.
///
/// A read waits for as long as nobody who could have the page answers: while one home or the origin
/// is left to come back, it is late, never wrong and never an error.
///
/// Threads: any. Fetching is done by a few threads of its own, each with a source of its own and a
/// part of the version's pages.
/// Errors: kCorrupt: every copy of a page is damaged, for kDamagedTries tries. kUnavailable: the
/// reader is being destroyed.
class BaseReader final {
 public:
  /// Opens what a thread of the reader reads with; tried again until it succeeds.
  using OpenSource = std::function<Result<std::unique_ptr<VersionSource>>()>;

  struct Options {
    OpenSource open;
    unsigned threads = 2;
    std::size_t prefetches_max = 4;  ///< Of each thread, under way at once.
    std::size_t extents_kept = 32;   ///< Of each thread, for pages that are not asked for yet.
    std::chrono::milliseconds pause_min{100};  ///< Before a failed fetch is tried again.
    std::chrono::milliseconds pause_max{2'000};
  };

  struct Counts {
    std::uint64_t demand_fetches = 0;  ///< Extents.
    std::uint64_t prefetches = 0;
    std::uint64_t merged = 0;  ///< Reads that waited for a fetch that was under way.
    std::uint64_t retries = 0;
    VersionSource::Counts source;
  };

  static constexpr int kDamagedTries = 8;

  /// Borrows the mirror.
  BaseReader(Options options, Mirror& mirror);
  ~BaseReader();
  BaseReader(const BaseReader&) = delete;
  BaseReader& operator=(const BaseReader&) = delete;

  /// Fills whole pages from `first` on; pages beyond the version's end are zeros.
  Result<void> read(std::uint64_t first, std::span<std::byte> pages);

  /// Learns of the leaf around a page which of its pages are zeros: the mirror knows then.
  Result<void> resolve(std::uint64_t page);

  /// Pages that will be read, in this order. Those that do not fit into the queue are dropped.
  void prefetch(std::span<const std::uint64_t> pages);

  /// Waits for prefetches. False: not all were done by the deadline.
  bool drain(Deadline deadline);

  Counts counts() const;

 private:
  class Lane;

  Lane& lane_of(std::uint64_t page);

  const Options options_;
  Mirror& mirror_;
  std::vector<std::unique_ptr<Lane>> lanes_;
};

}  // namespace samepage::imagestore
