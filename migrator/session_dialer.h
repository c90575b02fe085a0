#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <string>

#include "migrator/session_channel.h"
#include "migrator/tls_stream.h"
#include "migrator/wire_counter.h"

namespace samepage::migrator {

struct SessionDialerOptions {
  std::string session;
  PreSharedKey key{};
  std::string address;
  std::uint16_t port = 0;
  std::chrono::milliseconds connect_max{10'000};  ///< For one channel, TLS included.
};

/// Opens a session's channels from the source's agent to the target's.
/// Threads: any. Lifetime: the counter outlives it and what it opened.
class SessionDialer final {
 public:
  SessionDialer(SessionDialerOptions options, WireCounter& counter);

  /// kInvalid: the target's agent does not hold this session's secret. kUnavailable: it cannot be
  /// reached. kTimedOut as ever.
  Result<std::unique_ptr<ByteStream>> open(Channel channel) const;

 private:
  const SessionDialerOptions options_;
  WireCounter& counter_;
};

}  // namespace samepage::migrator
