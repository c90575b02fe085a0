#pragma once

#include <atomic>
#include <cstdint>

namespace samepage::migrator {

/// Counts the bytes that one session's connections put on and take off their sockets, TLS included.
/// Threads: any.
struct WireCounter {
  std::atomic<std::uint64_t> sent = 0;
  std::atomic<std::uint64_t> received = 0;

  std::uint64_t total() const { return sent + received; }
};

}  // namespace samepage::migrator
