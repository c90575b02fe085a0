#pragma once

#include <chrono>
#include <condition_variable>
#include <functional>
#include <memory>
#include <optional>
#include <thread>

#include "core/mutex.h"
#include "core/result.h"
#include "migrator/session_channel.h"
#include "migrator/source_state.h"

namespace samepage::migrator {

/// What the source of a migration and the target's agent say to each other on the kSignal channel.
/// What is heard becomes events of the source's state.
///
/// Threads: every method may be called from any thread, but open(), listen() and close() from one;
/// it hears on a thread of its own. Lifetime: what `on_event` uses outlives it.
class TargetTalk final {
 public:
  explicit TargetTalk(std::function<void(source::Event)> on_event)
      : on_event_(std::move(on_event)) {}
  ~TargetTalk() { close(); }
  TargetTalk(const TargetTalk&) = delete;
  TargetTalk& operator=(const TargetTalk&) = delete;

  /// Takes the channel and waits for the target to be ready. kUnavailable: it is not.
  Result<void> open(std::unique_ptr<ByteStream> channel, Deadline deadline);

  /// Begins to hear, until the target has ended the channel.
  void listen(Deadline deadline);

  /// Errors: those of the stream; kUnavailable also: nothing is open.
  Result<void> send(const Signal& signal);

  /// Sends it, and waits until nothing more is to be heard, which is the answer.
  void send_last(const Signal& signal, std::chrono::milliseconds wait);

  /// When the target said that it resumed the guest.
  std::optional<std::chrono::steady_clock::time_point> resumed_at() const;

  /// Breaks the channel at once.
  void shut_down();

  /// Says farewell, and waits for the thread.
  void close();

 private:
  void hear_all(Deadline deadline);
  Result<void> hear(const Signal& signal);

  const std::function<void(source::Event)> on_event_;
  std::unique_ptr<SignalLink> link_;  ///< Set by open().
  mutable Mutex mutex_;
  std::condition_variable_any changed_;
  std::optional<std::chrono::steady_clock::time_point> resumed_at_ GUARDED_BY(mutex_);
  bool has_ended_ GUARDED_BY(mutex_) = false;
  std::jthread thread_;
};

}  // namespace samepage::migrator
