#pragma once

#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <optional>

#include "core/clock.h"
#include "core/mutex.h"
#include "core/page.h"
#include "migrator/stream_slab.h"

namespace samepage::migrator {

/// The stream that went before, for copies of its pages and differences to them. Both relays keep
/// one: a batch may refer to what lies at most `reach` bytes before it, and the target forgets
/// nothing that a batch which it has not rebuilt may refer to.
/// Threads: every method may be called from any thread; add() in the stream's order.
class StreamHistory {
 public:
  explicit StreamHistory(std::uint64_t reach) : reach_(reach) {}

  /// The stretch behind all others. What lies more than `reach` before its begin is forgotten.
  void add(StreamBytes stretch);

  /// In place of a stretch that nobody will refer to: so many bytes that are never found.
  void skip(std::size_t bytes);

  /// The page that begins at `place`, in memory that stays while the result does. Waits until the
  /// history has come that far. Nothing: forgotten, not within one stretch, or close() was called.
  std::optional<StreamBytes> find(std::uint64_t place);

  std::uint64_t reach() const { return reach_; }

  void close();

 private:
  struct Stretch {
    std::uint64_t begin = 0;
    StreamBytes bytes;
  };

  const std::uint64_t reach_;
  void forget(std::uint64_t begin) REQUIRES(mutex_);

  Mutex mutex_;
  std::condition_variable_any grown_;
  std::deque<Stretch> stretches_ GUARDED_BY(mutex_);
  std::uint64_t end_ GUARDED_BY(mutex_) = 0;
  bool closed_ GUARDED_BY(mutex_) = false;
};

}  // namespace samepage::migrator
