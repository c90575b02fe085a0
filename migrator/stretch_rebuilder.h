#pragma once

#include <atomic>
#include <cstdint>
#include <map>
#include <optional>
#include <span>
#include <vector>

#include "core/mutex.h"
#include "core/page_digest.h"
#include "core/result.h"
#include "migrator/arrivals.h"
#include "migrator/packed_bytes.h"
#include "migrator/stream_history.h"
#include "pagecache/page_cache.h"

namespace samepage::migrator {

/// Which of the host's sources of pages lies in memory like the guest: chosen when it is known from
/// the start, or once most of the pages that were found lay at the same numbers in one of them.
/// Threads: every method may be called from any thread.
class BaseChoice {
 public:
  /// Its checks cost two bytes for each of its pages, and agreeing pages save eight each: what is
  /// found must lie at its own number this often, of so many pages at least.
  static constexpr std::uint64_t kPagesMin = 1024;
  static constexpr double kShareMin = 0.6;

  explicit BaseChoice(std::optional<pagecache::SourceId> known) : chosen_(known) {}

  std::optional<pagecache::SourceId> chosen() const;

  /// Takes what was found into account. Returns true when this made the choice.
  bool saw(std::span<const pagecache::WantedPage> wanted);

 private:
  mutable Mutex mutex_;
  std::optional<pagecache::SourceId> chosen_ GUARDED_BY(mutex_);
  std::uint64_t found_ GUARDED_BY(mutex_) = 0;
  std::map<pagecache::SourceId, std::uint64_t> in_place_ GUARDED_BY(mutex_);
};

/// Rebuilds stretches from batches and what is on this host. Threads: one at a time; several
/// rebuilders share the cache, the history and the choice, which outlive them.
class StretchRebuilder {
 public:
  struct Shared {
    pagecache::PageCache& cache;
    StreamHistory& history;
    BaseChoice& base;
  };
  explicit StretchRebuilder(Shared shared) : shared_(shared) {}

  /// Fills the arrival's stretch, its refs, and those of them that are missing on this host.
  /// Returns whether a base was chosen meanwhile. kCorrupt: the body is not a batch, or refers to
  /// what there is not.
  Result<bool> rebuild(Arrival& arrival);

 private:
  Result<void> fill_from_history(const BatchGap& gap, std::span<std::byte> stretch);
  Result<void> fill_placed(Arrival& arrival);
  bool fill_found(Arrival& arrival);

  const Shared shared_;
  ByteUnpacker unpacker_;
};

}  // namespace samepage::migrator
