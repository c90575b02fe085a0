#pragma once

#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <vector>

#include "core/clock.h"
#include "core/mutex.h"
#include "core/page_digest.h"
#include "core/result.h"
#include "migrator/link_meter.h"
#include "migrator/relay_messages.h"
#include "migrator/stream_slab.h"

namespace samepage::migrator {

/// What the source has sent and the target has not acknowledged, kept so that pages can be sent
/// again. How many batches that may be is bounded by what the target holds, and how many bytes of
/// them have not arrived by what the link needs. Threads: every method may be called from any
/// thread.
class ResendWindow {
 public:
  struct Limits {
    std::size_t batches_max = 0;
    std::size_t wire_bytes_max = 0;  ///< On the link; one batch passes whatever its size.
  };
  struct Entry {
    std::uint64_t sequence = 0;
    std::size_t wire_bytes = 0;
    StreamBytes stretch;
    std::vector<std::uint32_t> ref_offsets;  ///< Where in it the referenced pages lie.
  };

  ResendWindow(Limits limits, const DigestKey& page_key) : limits_(limits), key_(page_key) {}

  /// Keeps `entry`, as soon as there is room for it. Sequence numbers rise by one from 0.
  /// kTimedOut: the target has acknowledged too little. Else what close() was given.
  Result<void> add(Entry entry, Deadline deadline);

  /// This batch and all before it are off the link. kCorrupt: as acknowledge().
  Result<void> arrived(std::uint64_t sequence);

  /// Lets go of everything up to `sequence`, and says how many bytes of the stream that was.
  /// kCorrupt: that was not sent, or acknowledged before.
  Result<std::uint64_t> acknowledge(std::uint64_t sequence);

  /// The pages asked for. kCorrupt: there are no such references under way.
  Result<ResentPages> pages(const MissingPages& missing);

  /// Those pages of a batch that are not what the target has instead. Errors as pages().
  Result<ResentPages> differing(const DoubtedBatch& doubt);

  /// kTimedOut: not everything was acknowledged. Else what close() was given.
  Result<void> wait_until_empty(Deadline deadline);

  /// What the link needs to have under way.
  std::uint64_t link_bytes() const;

  /// Of the way to the target; 0: not known yet.
  double link_bytes_per_second() const;

  /// Makes every waiting and later add() and wait_until_empty() return kUnavailable.
  void close();

 private:
  bool has_room(std::size_t wire_bytes) REQUIRES(mutex_);
  Result<const Entry*> under_way(std::uint64_t sequence) REQUIRES(mutex_);
  void take_off_link(std::uint64_t sequence) REQUIRES(mutex_);

  const Limits limits_;
  const DigestKey key_;
  mutable Mutex mutex_;
  std::condition_variable_any changed_;
  std::deque<Entry> entries_ GUARDED_BY(mutex_);
  LinkMeter meter_ GUARDED_BY(mutex_);
  std::uint64_t next_sequence_ GUARDED_BY(mutex_) = 0;
  std::uint64_t next_to_arrive_ GUARDED_BY(mutex_) = 0;
  std::size_t wire_bytes_ GUARDED_BY(mutex_) = 0;  ///< On the link.
  bool closed_ GUARDED_BY(mutex_) = false;
};

}  // namespace samepage::migrator
