#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <thread>

#include "migrator/byte_stream.h"

namespace samepage::migrator {

/// Hands what came from one stream to another. The default is write_all().
using Pass = std::function<Result<void>(std::span<const std::byte>)>;

/// How to hand on; an empty one is the default.
struct StreamPairHooks {
  Pass to_near;
  Pass to_far;
};

/// Copies bytes both ways between two connections until both directions have ended, or one broke:
/// then both connections are shut down.
/// Threads: two of its own; every method may be called from any thread.
class StreamPair final {
 public:
  StreamPair(std::unique_ptr<ByteStream> near, std::unique_ptr<ByteStream> far,
             StreamPairHooks hooks, Deadline deadline);

  StreamPair(const StreamPair&) = delete;
  StreamPair& operator=(const StreamPair&) = delete;

  /// Shuts both connections down and waits for the threads.
  ~StreamPair();

  /// Both threads have ended.
  bool done() const { return running_ == 0; }
  void shut_down();

 private:
  void copy(ByteStream& from, ByteStream& to, const Pass& pass);

  const std::unique_ptr<ByteStream> near_;
  const std::unique_ptr<ByteStream> far_;
  const StreamPairHooks hooks_;
  const Deadline deadline_;
  std::atomic<int> running_ = 2;
  std::jthread outward_;
  std::jthread inward_;
};

}  // namespace samepage::migrator
