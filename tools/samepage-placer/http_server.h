#pragma once

#include <chrono>
#include <cstddef>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <stop_token>
#include <string>
#include <string_view>
#include <vector>

#include "core/clock.h"
#include "core/result.h"

namespace samepage::http {

using Fields = std::map<std::string, std::string, std::less<>>;

/// One request, read completely and within bounds before its handler sees it.
struct Request {
  std::string method;
  std::string path;
  Fields params;         ///< Route "/hosts/NAME" and path "/hosts/alpha": {"NAME", "alpha"}.
  Fields query;          ///< Decoded; of a repeated key the last value counts.
  std::string body;      ///< At most Options::body_bytes_max.
  Deadline deadline;     ///< The handler answers or fails with kTimedOut before.
  std::stop_token stop;  ///< The server is going down; answer kUnavailable soon.
};

/// Pulled for the lines of a streamed answer, one call at a time, from the connection's thread. It
/// blocks until it has whole lines or `deadline` passes: empty text means nothing new yet, nullopt
/// that the stream is complete. Never called again, and destroyed, once the client or the server
/// is gone, so it owns what it needs. After a silence of heartbeat_max the server sends an empty
/// line, which clients skip.
using StreamSource = std::function<std::optional<std::string>(Deadline deadline)>;

struct Response {
  int status = 200;
  std::string body = {};
  std::string content_type = "application/json";
  StreamSource stream = {};  ///< When set, sent instead of `body`.
};

/// Runs on the connection's own thread, several at a time: it may block until the request's
/// deadline. Its Error is answered as docs/api.md says; an exception is answered as `io`.
using Handler = std::function<Result<Response>(const Request&)>;

/// A segment of `pattern` that is all upper case ("NAME") matches any one non-empty segment.
struct Route {
  std::string method;
  std::string pattern;
  Handler handler;
};

/// One JSON document a line.
Response ndjson(StreamSource source);

/// The answer to a request that contradicts the present state; 409, code `conflict`.
Response conflict(std::string_view message);

/// The envelope of docs/api.md for an Error.
Response error_response(const Error& error);

struct Options {
  /// UNIX socket of mode 0660. This or tcp_address, not both.
  std::string socket_path = {};
  /// "127.0.0.1:8006", "[::1]:0"; plain HTTP, and only with `token`.
  std::string tcp_address = {};
  /// What TCP clients present as a bearer; at least 16 characters.
  std::string token = {};
  unsigned connections_max = 32;  ///< Further clients are hung up on.
  unsigned streams_max = 16;      ///< Of those; further ones are answered `unavailable`.
  std::size_t body_bytes_max = std::size_t{1} << 20U;
  std::chrono::seconds request_time_max{120};  ///< What a handler may take; then what a
                                               ///< connection may idle or not read its answer.
  std::chrono::seconds heartbeat_max{10};
};

/// Serves a table of routes over HTTP/1.1.
///
/// Invariant: handlers see only requests that are complete, bounded and, over TCP, authenticated.
/// Threads: one per connection, at most connections_max, and one that accepts. Handlers and stream
/// sources may therefore block; what they share they lock.
/// Lifetime: destruction (or stop()) waits for running handlers and ends all streams; handlers'
/// captures must live until then.
class HttpServer {
 public:
  /// Listens when it returns. A socket file that nobody listens on is replaced.
  /// kInvalid: contradictory options, or a file that is no socket lies at socket_path.
  /// kUnavailable: another server listens there. kIo: the system refused.
  static Result<std::unique_ptr<HttpServer>> create(const Options& options,
                                                    std::vector<Route> routes);
  HttpServer(const HttpServer&) = delete;
  HttpServer& operator=(const HttpServer&) = delete;
  ~HttpServer();

  /// Refuses new requests, asks handlers to hurry, cuts streams off, waits for all. Idempotent.
  void stop();

  /// The socket's path, or "127.0.0.1:PORT" with the port that was given or chosen.
  const std::string& address() const;

 private:
  class Daemon;
  explicit HttpServer(std::unique_ptr<Daemon> daemon);

  std::unique_ptr<Daemon> daemon_;
};

}  // namespace samepage::http
