#include "imagestore/shared_file.h"

namespace samepage::imagestore {

Result<std::unique_lock<std::timed_mutex>> SharedFile::take_turn(
    std::chrono::milliseconds time_max) {
  std::unique_lock lock(turn_, time_max);
  if (lock.owns_lock()) return lock;
  return fail(Errc::kUnavailable, "other threads of this process write to the store for too long");
}

Result<void> SharedFile::flush(const std::function<Result<void>()>& flush) {
  Result<void> result;
  flushes_.run(result, [&](std::span<Result<void>* const> all) {
    const auto flushed = flush();
    for (Result<void>* const one : all) *one = flushed;
  });
  return result;
}

}  // namespace samepage::imagestore
