#pragma once

#include <chrono>
#include <cstddef>
#include <functional>
#include <string>
#include <string_view>

#include "core/clock.h"
#include "core/result.h"

namespace samepage::http {

/// Speaks to the placer's API (docs/api.md); a path is what follows /api/v1.
///
/// Threads: one at a time. Each call makes its own connection, so that a client that outlives a
/// placer's restart works on.
/// Errors of every call: kUnavailable: the placer does not answer; the message says where it was
/// sought and how to start it. kTimedOut: no whole answer by the deadline; the outcome is unknown.
/// kCorrupt: what answers is no placer. Else what the placer said, in its own words; a `conflict`
/// or `unauthorized` is kInvalid.
class HttpClient {
 public:
  struct Options {
    std::string socket_path = {};  ///< Used when `url` is empty.
    std::string url = {};          ///< "http://10.0.0.1:8006"
    std::string token = {};        ///< Sent as a bearer when not empty.
    std::chrono::seconds connect_time_max{5};
    std::size_t answer_bytes_max = std::size_t{64} << 20U;
    std::size_t line_bytes_max = std::size_t{1} << 20U;  ///< Of a streamed answer.
  };

  explicit HttpClient(Options options) : options_(std::move(options)) {}

  Result<std::string> get(const std::string& path, Deadline deadline) const;

  /// POST, PUT or DELETE; an empty body is sent as no body.
  Result<std::string> send(const std::string& method, const std::string& path,
                           const std::string& body, Deadline deadline) const;

  enum class StreamEnd {
    kComplete,  ///< The placer said all there is.
    kStopped,   ///< `keep_going` said no.
  };

  /// Hands every line to `on_line` as it comes; empty ones are skipped. Asks `keep_going` at least
  /// once a second and whenever a signal arrives. kUnavailable also when the placer went away in
  /// the middle.
  Result<StreamEnd> stream(const std::string& path,
                           const std::function<void(std::string_view)>& on_line,
                           const std::function<bool()>& keep_going, Deadline deadline) const;

 private:
  struct Exchange;
  Result<void> perform(Exchange& exchange, Deadline deadline) const;
  Error transport_error(const Exchange& exchange, int curl_code) const;
  std::string placer() const;

  Options options_;
};

/// `text` as one segment of a path or one value of a query.
std::string url_encoded(std::string_view text);

}  // namespace samepage::http
