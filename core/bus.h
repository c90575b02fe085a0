#pragma once

#include <chrono>
#include <cstddef>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "core/bus.pb.h"
#include "core/clock.h"
#include "core/curve_keys.h"
#include "core/result.h"

namespace samepage {

class BusOutbox;

/// The most that one message, and one queue of them, may hold; and how fast a silent peer is
/// missed.
struct BusLimits {
  std::size_t message_bytes_max = std::size_t{64} << 20U;
  std::size_t queue_bytes_max = std::size_t{256} << 20U;
  std::size_t queue_messages_max = 4096;
  std::size_t requests_max = 4096;  ///< Asked and not answered yet.
  std::chrono::milliseconds heartbeat_interval{1000};
  std::chrono::milliseconds silence_max{5000};  ///< After this a peer counts as disconnected.
  std::chrono::milliseconds reconnect_interval{500};
};

/// A request or notice that arrived. Move it to a thread of your own and answer there.
class BusIncoming {
 public:
  BusIncoming(std::string host, bus::Envelope envelope, std::weak_ptr<BusOutbox> outbox);

  /// The name under which the sender's key is enrolled; empty when the sender is the placer.
  const std::string& host() const { return host_; }
  const bus::Envelope& envelope() const { return envelope_; }
  bool wants_answer() const { return envelope_.request() != 0; }

  /// Answers with a body or a failure; once, at any time, from any thread. Dropped when the bus or
  /// the peer is gone, when it is a notice, or when the queue is full: the asker then times out.
  void answer(Result<bus::Envelope> reply);

 private:
  std::string host_;
  bus::Envelope envelope_;
  std::weak_ptr<BusOutbox> outbox_;
};

/// The placer's end of the bus: a ZeroMQ ROUTER that lets in enrolled CURVE keys only. The sender
/// of a message is known by the key of its connection, never by a field. When one key connects
/// twice, the newer connection is the host's.
///
/// Threads: methods from any thread; callbacks come from the bus's own thread: they must return at
/// once and must not call request(). Lifetime: no callback runs after the destructor, and no
/// method may.
/// A message that cannot be decoded is dropped and logged once for its sender.
class BusServer {
 public:
  struct Options {
    std::string endpoint;  ///< "tcp://0.0.0.0:7700"; port * takes a free one.
    CurveKeyPair keys;
    BusLimits limits = {};
    std::function<void(BusIncoming)> on_message;
    std::function<void(const std::string& host)> on_connected = {};
    std::function<void(const std::string& host)> on_disconnected = {};
  };

  /// kInvalid: the endpoint or the keys are malformed. kIo: the endpoint cannot be bound.
  static Result<std::unique_ptr<BusServer>> create(Options options);
  BusServer(const BusServer&) = delete;
  BusServer& operator=(const BusServer&) = delete;
  ~BusServer();

  /// Ends the bus before its destructor does: callbacks stop, and requests that other threads wait
  /// for return kUnavailable, so that those threads can be joined. Not from a callback.
  void close();

  /// The bound endpoint, with the port's number.
  std::string endpoint() const;

  /// Lets a key in under this name; a name enrolled again changes its key, and the old key is out.
  /// kInvalid: no key, an empty name, or the key is another host's.
  Result<void> enroll(const std::string& host, const std::string& public_key);

  /// Shuts the host's key out at once, connected or not. kNotFound: no such host.
  Result<void> forget(const std::string& host);

  /// Asks and waits for the answer. kUnavailable: the host is not connected or its queue is full;
  /// it has not seen the request. kTimedOut: no answer by the deadline, or the connection was lost
  /// before one; the outcome is unknown. kInvalid: the message is too large. Any other: the host's.
  Result<bus::Envelope> request(const std::string& host, bus::Envelope envelope, Deadline deadline);

  /// Sends a notice. Success means queued. kUnavailable and kInvalid as above.
  Result<void> send(const std::string& host, bus::Envelope envelope);

  /// When the host was last heard of; empty while it is not connected. A connected host is heard
  /// of once per heartbeat_interval.
  std::optional<std::chrono::steady_clock::time_point> last_seen(const std::string& host) const;

 private:
  class Io;
  explicit BusServer(std::unique_ptr<Io> io);

  std::unique_ptr<Io> io_;
};

/// An agent's end of the bus: a ZeroMQ DEALER that connects with its own key, checks the placer's,
/// and connects again by itself for as long as it lives. Threads and lifetime as BusServer's.
class BusClient {
 public:
  struct Options {
    std::string endpoint;  ///< "tcp://placer.example:7700"
    CurveKeyPair keys;
    std::string server_public_key;
    BusLimits limits = {};
    std::function<void(BusIncoming)> on_message;
    /// After each new connection, before any message of it: say Hello from a thread of your own.
    std::function<void()> on_connected = {};
    std::function<void()> on_disconnected = {};
  };

  /// Nothing is sent or called back before start(). kInvalid: the endpoint or a key is malformed.
  static Result<std::unique_ptr<BusClient>> create(Options options);
  BusClient(const BusClient&) = delete;
  BusClient& operator=(const BusClient&) = delete;
  ~BusClient();

  /// Connects, and goes on by itself; once, when everything that the callbacks use is there.
  void start();

  /// As BusServer's.
  void close();

  /// As BusServer's. kUnavailable says why there is no connection, for people.
  Result<bus::Envelope> request(bus::Envelope envelope, Deadline deadline);
  Result<void> send(bus::Envelope envelope);

  bool connected() const;

  /// Why there is no connection, in one sentence that says what to do; empty while there is one.
  std::string trouble() const;

 private:
  class Io;
  explicit BusClient(std::unique_ptr<Io> io);

  std::unique_ptr<Io> io_;
};

}  // namespace samepage
