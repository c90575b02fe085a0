#pragma once

#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <memory>
#include <vector>

#include "core/clock.h"
#include "core/mutex.h"
#include "core/result.h"
#include "migrator/batch.h"
#include "migrator/stream_slab.h"

namespace samepage::migrator {

/// A batch that has come and is not with QEMU yet. It belongs to whoever Arrivals gave it to: a
/// worker until that says complete() or ask(), then the receiver of resent pages, then the writer.
struct Arrival {
  BatchHeader header;
  StreamBytes body;                    ///< The message's.
  std::span<const std::byte> rest;     ///< Of `body`, behind the header.
  StreamBytes stretch;                 ///< What the batch stands for, once it is rebuilt.
  bool is_pipe = false;                ///< The stretch is a part of the body.
  std::vector<BatchGap> refs;          ///< Its found and placed pages.
  std::vector<std::uint32_t> missing;  ///< Of `refs`, asked for and not come yet.
  bool doubted = false;                ///< The source was asked which of `refs` differ.
};

/// The batches between the receiver, the workers that rebuild them, and the writer, which takes
/// them in order. At most kBatchesInFlightMax. Threads: every method may be called from any thread.
class Arrivals {
 public:
  /// kCorrupt: the source has sent more than it may.
  Result<void> add(std::shared_ptr<Arrival> arrival);

  /// For a worker: the oldest that nobody has taken. Null once there will be none.
  std::shared_ptr<Arrival> take();

  /// The batch is rebuilt and verified.
  void complete(const Arrival& arrival);

  /// The source is asked for pages: when they come, the batch is for asked(). Before asking.
  void ask(const Arrival& arrival);

  /// The batch that pages have come for, which is the caller's now. kCorrupt: nobody asked.
  Result<std::shared_ptr<Arrival>> asked(std::uint64_t sequence);

  /// For the writer: the oldest batch, removed, once it is complete. Null: there are no more, after
  /// end_input(), or close() was called. kTimedOut: pages that were asked for do not come.
  /// kUnavailable: they never will.
  Result<std::shared_ptr<Arrival>> pop(std::chrono::milliseconds stall_max);

  /// No more batches will be added.
  void end_input();

  /// No more pages that were asked for will come, nor anything else.
  void end_pages();

  /// Every waiting and later call returns at once.
  void close();

 private:
  enum class State : std::uint8_t { kWaiting, kTaken, kAsked, kComplete };
  struct Entry {
    std::shared_ptr<Arrival> arrival;
    State state = State::kWaiting;
    Deadline::clock::time_point asked_at;
  };

  Entry& entry(const Arrival& arrival) REQUIRES(mutex_);

  Mutex mutex_;
  std::condition_variable_any changed_;
  std::deque<Entry> entries_ GUARDED_BY(mutex_);
  std::uint64_t first_ GUARDED_BY(mutex_) = 0;  ///< The sequence number of the front entry.
  std::size_t taken_ GUARDED_BY(mutex_) = 0;    ///< Entries from the front on that were taken.
  bool input_ended_ GUARDED_BY(mutex_) = false;
  bool pages_ended_ GUARDED_BY(mutex_) = false;
  bool closed_ GUARDED_BY(mutex_) = false;
};

}  // namespace samepage::migrator
