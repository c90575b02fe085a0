#pragma once

#include <map>
#include <optional>
#include <set>
#include <string>
#include <string_view>

#include <zmq.hpp>

#include "core/mutex.h"
#include "core/result.h"

namespace samepage {

/// Knows the enrolled keys and answers ZeroMQ's authentication protocol (ZAP, RFC 27) with them.
/// The User-Id of a connection is its public key, not its host's name, so that a key forgotten or
/// enrolled under another name counts at once for connections that exist already.
/// Internal to the bus. Threads: serve() on the I/O thread, the rest on any.
class BusDoorkeeper {
 public:
  /// The ZAP domain of the sockets that this doorkeeper guards.
  static constexpr const char* kDomain = "samepage";

  /// Takes the context's one place for an authenticator. Throws zmq::error_t.
  explicit BusDoorkeeper(zmq::context_t& context);

  Result<void> enroll(const std::string& host, const std::string& public_key);
  Result<void> forget(const std::string& host);
  std::optional<std::string> host_of(std::string_view public_key) const;

  zmq::socket_ref socket() { return socket_; }

  /// Answers every question that waits.
  void serve();

 private:
  bool is_news(const std::string& key);

  zmq::socket_t socket_;
  std::set<std::string> refused_keys_;  // The I/O thread's: those that the log has named.
  mutable Mutex mutex_;
  std::map<std::string, std::string, std::less<>> host_by_key_ GUARDED_BY(mutex_);
  std::map<std::string, std::string, std::less<>> key_by_host_ GUARDED_BY(mutex_);
};

}  // namespace samepage
