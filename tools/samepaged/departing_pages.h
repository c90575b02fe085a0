#pragma once

#include <atomic>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <optional>
#include <thread>
#include <vector>

#include "core/mutex.h"
#include "migrator/stretch_sink.h"
#include "pagecache/checkpoint_store.h"

namespace samepage::agent {

/// Makes the checkpoint of a guest that leaves out of what its relays send, so that the guest's
/// memory is not read twice. It begins to write when the guest has left, or when more than
/// kPatientBytes wait; more than kWaitingBytesMax are left out.
///
/// Threads: every method may be called from any thread; it writes on one of its own, which gives
/// way to whatever else there is to do, until it is told to stop.
class DepartingPages final : public migrator::StretchSink {
 public:
  static constexpr std::size_t kWaitingBytesMax = std::size_t{512} << 20U;
  static constexpr std::size_t kPatientBytes = kWaitingBytesMax / 2;
  using Keep = std::function<void(std::shared_ptr<const pagecache::Checkpoint>)>;

  explicit DepartingPages(std::unique_ptr<pagecache::CheckpointWriter> writer);

  /// stop(), and waits for it.
  ~DepartingPages() override;

  void saw(const migrator::CutStretch& stretch) override;

  /// The guest has left: `keep` is called with the checkpoint once all is written.
  void guest_left(Keep keep);

  /// Writes no more: keeps what was written when the guest has left, and nothing when it stays.
  void stop();

  /// Nothing will be written or kept any more.
  bool done() const { return done_; }

 private:
  struct Page {
    std::uint64_t number = 0;
    std::size_t offset = 0;  ///< In the stretch.
  };
  struct Waiting {
    migrator::StreamBytes bytes;
    std::vector<Page> pages;
  };

  void write_all();
  std::optional<Waiting> next();

  std::unique_ptr<pagecache::CheckpointWriter> writer_;  // The thread's.
  std::atomic<bool> done_{false};
  Mutex mutex_;
  std::condition_variable_any changed_;
  std::deque<Waiting> waiting_ GUARDED_BY(mutex_);
  std::size_t waiting_bytes_ GUARDED_BY(mutex_) = 0;
  Keep keep_ GUARDED_BY(mutex_);
  bool stopped_ GUARDED_BY(mutex_) = false;
  int thread_id_ GUARDED_BY(mutex_) = 0;  ///< Set while it gives way.
  std::jthread thread_;
};

}  // namespace samepage::agent
