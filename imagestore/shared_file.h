#pragma once

#include <chrono>
#include <functional>
#include <memory>
#include <mutex>
#include <string>

#include "core/result.h"
#include "imagestore/combiner.h"

namespace samepage::imagestore {

/// A file that many threads of this process write, each through a descriptor or connection of its
/// own: they queue for it here instead of trying its lock, which other processes may hold, again
/// and again; and flushes that are wanted at the same time are one.
/// Threads: any.
class SharedFile {
 public:
  /// The one for this path.
  static std::shared_ptr<SharedFile> of(const std::string& path) {
    return shared_in_process<SharedFile>(path);
  }

  /// kUnavailable: other threads of this process kept it for so long.
  Result<std::unique_lock<std::timed_mutex>> take_turn(std::chrono::milliseconds time_max);

  /// Runs `flush`, or waits for another thread's that begins after this call. `flush` flushes what
  /// was written through any descriptor. Its errors go to all who wait for it.
  Result<void> flush(const std::function<Result<void>()>& flush);

 private:
  std::timed_mutex turn_;
  Combiner<Result<void>> flushes_;
};

}  // namespace samepage::imagestore
