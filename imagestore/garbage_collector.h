#pragma once

#include <chrono>
#include <cstdint>
#include <functional>

#include "core/clock.h"
#include "core/result.h"
#include "imagestore/image_store.h"
#include "imagestore/importer.h"

namespace samepage::imagestore {

/// The shortest grace time: longer than any commit takes, and than an import without a last look.
inline constexpr std::chrono::minutes kGraceMin{15};

struct GarbageOptions {
  /// How long what no version leads to stays, so that whoever found it before can go on using it.
  /// Longer than any lease.
  std::chrono::seconds grace = std::chrono::hours(24);
  bool dry_run = false;                                         ///< Changes nothing.
  std::function<bool(const ImportProgress&)> on_progress = {};  ///< As in ImportOptions.
};

struct GarbageReport {
  std::uint64_t roots = 0;  ///< Versions that images have or disks hold.
  std::uint64_t live_objects = 0;
  std::uint64_t live_bytes = 0;
  std::uint64_t buried_objects = 0;  ///< By this run.
  std::uint64_t buried_bytes = 0;
  std::uint64_t waiting_objects = 0;  ///< Buried before; their grace time is not over.
  std::uint64_t waiting_bytes = 0;
  std::uint64_t dug_up_objects = 0;  ///< That are in use again.
  std::uint64_t swept_objects = 0;   ///< Removed, their room free; on a dry run: that would be.
  std::uint64_t swept_bytes = 0;
  std::uint64_t foreign_objects = 0;  ///< Of other sharing domains, which this run leaves alone.
};

/// Marks what the catalog's versions lead to; buries what they do not; sweeps what has been buried
/// for the grace time and is still led to by nothing. Killed at any moment, it has removed nothing
/// that is in use, and the next run goes on. Imports, commits, clones and readers go on meanwhile.
/// Memory: 64 bytes for each object.
///
/// kCorrupt: a version in use is damaged, so it is not known what it needs: nothing was changed.
/// kInvalid: the grace time is below kGraceMin. kUnavailable: cancelled, or a lock is held. kIo:
/// the disk refused.
Result<GarbageReport> collect_garbage(ImageStore& store, const GarbageOptions& options,
                                      const Clock& clock);

}  // namespace samepage::imagestore
