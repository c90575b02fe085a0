#pragma once

#include <atomic>
#include <cstddef>
#include <functional>
#include <list>
#include <memory>
#include <string>
#include <thread>

#include "core/mutex.h"
#include "migrator/libvirt_rpc.h"
#include "migrator/socket_listener.h"
#include "migrator/socket_stream.h"
#include "migrator/stream_pair.h"

namespace samepage::migrator {

/// Whether the source's libvirt knows that the guest has arrived.
enum class FinishSeen : std::uint8_t {
  kNo,      ///< It cannot know: nothing of the answer's last byte was handed over.
  kMaybe,   ///< The answer was on its way when the connection broke.
  kHanded,  ///< It has taken the whole answer.
};

struct ControlForwarderOptions {
  std::string path;                            ///< Of the UNIX socket that libvirt connects to.
  Deadline deadline;                           ///< Of everything that is forwarded.
  std::chrono::milliseconds take_max{10'000};  ///< For libvirt to take the answer to Finish.
  std::size_t connections_max = 4;             ///< At the same time; more are turned away.

  /// Asked before a call of Finish that is not told to cancel is forwarded; may wait. When it says
  /// false, or when the connection is not libvirt's protocol, the connection is closed instead.
  /// Empty: every call passes.
  std::function<bool()> may_finish{};
};

/// Forwards the source libvirt's connections to the target's libvirt through the target's agent,
/// unchanged, and watches them for the answer to Finish (see "Never twice" in
/// docs/design-notes.md).
/// Threads: its own; stop() from one thread, the rest from any. Lifetime: what the callbacks use
/// outlives it.
class ControlForwarder final {
 public:
  /// Opens a connection to the target's libvirt. Called from the forwarder's own thread.
  using Dial = std::function<Result<std::unique_ptr<ByteStream>>()>;

  /// Listens when it returns. `on_finish` is called once, when the source's libvirt has taken the
  /// answer. Errors as SocketListener::listen_unix().
  static Result<std::unique_ptr<ControlForwarder>> create(ControlForwarderOptions options,
                                                          Dial dial,
                                                          std::function<void()> on_finish);

  ~ControlForwarder();
  ControlForwarder(const ControlForwarder&) = delete;
  ControlForwarder& operator=(const ControlForwarder&) = delete;

  /// Closes every connection and waits for its threads: from then on the answers below are final.
  void stop();

  FinishSeen finish() const { return finish_; }

  /// Some connection was not libvirt's protocol, so finish() may have missed the answer.
  bool lost() const { return lost_; }

 private:
  struct Connection;

  ControlForwarder(ControlForwarderOptions options, std::unique_ptr<SocketListener> listener,
                   Dial dial, std::function<void()> on_finish);
  void accept_all();
  void serve(Fd socket);
  Result<void> hand_to_target(Connection& connection, ByteStream& target,
                              std::span<const std::byte> bytes);
  Result<void> hand_to_source(Connection& connection, std::span<const std::byte> bytes);

  const ControlForwarderOptions options_;
  const Dial dial_;
  const std::function<void()> on_finish_;
  std::unique_ptr<SocketListener> listener_;
  std::atomic<FinishSeen> finish_ = FinishSeen::kNo;
  std::atomic<bool> lost_ = false;
  Mutex mutex_;
  std::list<Connection> connections_ GUARDED_BY(mutex_);
  std::jthread acceptor_;
};

}  // namespace samepage::migrator
