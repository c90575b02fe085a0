#pragma once

#include <atomic>
#include <optional>

#include "core/mutex.h"
#include "core/result.h"
#include "migrator/relay.h"

namespace samepage::migrator {

/// How a relay ended. The first of its threads that has something to say ends both connections,
/// and with them all waiting of the others; what they say then is not counted.
/// Threads: every method may be called from any thread.
class RelayVerdict {
 public:
  explicit RelayVerdict(RelayEnds ends) : ends_(ends) {}

  void end(Result<void> verdict);
  bool ended() const { return ended_.load(); }

  /// What end() was given first. end() must have been called.
  Result<void> result();

 private:
  RelayEnds ends_;
  std::atomic<bool> ended_{false};
  Mutex mutex_;
  std::optional<Result<void>> verdict_ GUARDED_BY(mutex_);
};

}  // namespace samepage::migrator
