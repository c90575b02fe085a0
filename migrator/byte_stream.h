#pragma once

#include <cstddef>
#include <span>

#include "core/clock.h"
#include "core/result.h"

namespace samepage::migrator {

/// A reliable, ordered, two-way byte connection: a socket to QEMU or libvirt, TLS between agents.
///
/// Threads: one reader and one writer at the same time; shut_down() from any thread, which makes
/// both return.
class ByteStream {
 public:
  virtual ~ByteStream() = default;

  /// Reads at least one byte, at most the buffer. Returns 0 at the peer's orderly end.
  /// kTimedOut: nothing came before the deadline. kUnavailable: the connection broke.
  virtual Result<std::size_t> read_some(std::span<std::byte> buffer, Deadline deadline) = 0;

  /// Writes everything. After an error an unknown part was written: shut down.
  virtual Result<void> write_all(std::span<const std::byte> bytes, Deadline deadline) = 0;

  /// Says that no more will be written; the peer reads 0 after the last byte.
  virtual Result<void> finish_writing() = 0;

  virtual void shut_down() = 0;
};

/// Fills the buffer. kUnavailable also: the peer's orderly end came first.
inline Result<void> read_exactly(ByteStream& stream, std::span<std::byte> buffer,
                                 Deadline deadline) {
  while (!buffer.empty()) {
    const std::size_t got = TRY(stream.read_some(buffer, deadline));
    if (got == 0) return fail(Errc::kUnavailable, "the peer ended the session");
    buffer = buffer.subspan(got);
  }
  return {};
}

}  // namespace samepage::migrator
