#pragma once

#include <cstddef>
#include <span>
#include <string>
#include <vector>

#include "core/clock.h"
#include "core/fd.h"
#include "core/result.h"

namespace samepage::imagestore {

/// A message on a store's UNIX socket: bytes, and a descriptor when shared memory goes along.
struct StoreFrame {
  std::vector<std::byte> bytes;
  Fd descriptor;
};

inline constexpr std::size_t kStoreFrameBytesMax = 128U << 10U;

/// A listening socket of sequenced packets, so that a message is whole or not there; mode 0660.
/// Replaces a socket that nobody listens on. kIo: the path cannot be bound. kInvalid: too long.
Result<Fd> listen_store(const std::string& path);

/// kUnavailable: nobody listens there; the message says what to do.
Result<Fd> connect_store(const std::string& path);

/// kUnavailable: the peer is gone. kTimedOut: it does not take the message. kInvalid: too large.
Result<void> send_frame(int socket, std::span<const std::byte> bytes, int descriptor,
                        Deadline deadline);

/// kUnavailable: the peer is gone. kTimedOut: nothing came. kCorrupt: larger than a frame may be.
Result<StoreFrame> receive_frame(int socket, Deadline deadline);

}  // namespace samepage::imagestore
