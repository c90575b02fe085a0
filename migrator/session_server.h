#pragma once

#include <atomic>
#include <chrono>
#include <cstddef>
#include <functional>
#include <list>
#include <memory>
#include <string>
#include <thread>

#include "core/fd.h"
#include "core/mutex.h"
#include "migrator/session_channel.h"
#include "migrator/socket_listener.h"
#include "migrator/tls_stream.h"
#include "migrator/wire_counter.h"

namespace samepage::migrator {

struct SessionServerOptions {
  std::string session;
  PreSharedKey key{};
  Deadline deadline;                               ///< Accepts nothing afterwards.
  std::chrono::milliseconds handshake_max{5'000};  ///< For a connection to become a channel.
  std::size_t handshakes_max = 8;                  ///< At the same time; more are turned away.
};

/// Accepts a session's channels on the target. Who does not hold the session's secret gets nothing
/// but a closed connection, and holds up nobody else.
/// Threads: its own; stop() from one thread. Lifetime: the counter outlives the channels; what the
/// callback uses outlives the server.
class SessionServer final {
 public:
  /// Called for each new channel, from a thread of the server's, several at the same time. Owns the
  /// stream: what it does not keep is closed.
  using OnChannel = std::function<void(Channel, std::unique_ptr<ByteStream>)>;

  SessionServer(SessionServerOptions options, std::unique_ptr<SocketListener> listener,
                WireCounter& counter, OnChannel on_channel);
  ~SessionServer();
  SessionServer(const SessionServer&) = delete;
  SessionServer& operator=(const SessionServer&) = delete;

  /// Stops listening; when it returns, on_channel is not called any more.
  void stop();

  std::uint16_t port() const { return port_; }

 private:
  struct Handshake {
    Mutex mutex;
    // A second name of the connection, to break it by; none any more once it is a channel or
    // refused, for a connection lives as long as one of its names.
    Fd socket GUARDED_BY(mutex);
    std::atomic<bool> done = false;
    std::jthread thread;
  };
  struct Opened {
    Channel channel;
    std::unique_ptr<ByteStream> stream;
  };

  void accept_all();
  void begin_handshake(Fd socket);
  Result<Opened> open_channel(Fd socket);

  const SessionServerOptions options_;
  WireCounter& counter_;
  const OnChannel on_channel_;
  const std::uint16_t port_;
  std::unique_ptr<SocketListener> listener_;
  std::list<Handshake> handshakes_;  // The acceptor's own.
  std::jthread acceptor_;
};

}  // namespace samepage::migrator
