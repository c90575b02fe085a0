#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <optional>
#include <span>
#include <vector>

#include "core/mutex.h"

namespace samepage::migrator {

/// The fixed part of a message of libvirt's RPC protocol, after its length word.
struct RpcHeader {
  std::uint32_t program = 0;
  std::uint32_t version = 0;
  std::uint32_t procedure = 0;
  std::uint32_t type = 0;
  std::uint32_t serial = 0;
  std::uint32_t status = 0;
};

/// One message that has passed completely.
struct RpcMessage {
  RpcHeader header;
  std::uint32_t last_word = 0;  ///< Its last four bytes; some calls' last argument.
  std::size_t end = 0;          ///< Of its bytes, in what was passed to feed().
};

/// Finds the messages in one direction of a libvirt connection as it passes, in pieces of any size.
/// Keeps no more than a header, so long messages cost nothing.
/// Threads: one at a time.
class RpcFramer {
 public:
  /// The messages whose last byte is in `bytes`, in order.
  std::vector<RpcMessage> feed(std::span<const std::byte> bytes);

  /// What passed is not libvirt's protocol, and nothing more will be found.
  bool lost() const { return lost_; }

 private:
  void keep_tail(std::span<const std::byte> bytes);
  RpcHeader header() const;

  std::array<std::byte, 28> head_{};  // The length word and the header.
  std::array<std::byte, 4> tail_{};   // The newest four bytes.
  std::size_t size_ = 0;              // Of the message, once its length word is known.
  std::size_t seen_ = 0;              // Of the message so far.
  bool lost_ = false;
};

/// Watches one libvirt connection for the answer that lets the source go: the success of a Finish
/// that was not told to cancel. See "Never twice" in docs/design-notes.md.
/// Threads: saw_from_source() and saw_from_target() each from one thread.
class FinishWatch {
 public:
  /// Bytes on their way to the target's libvirt. Call before they are forwarded. True when a Finish
  /// that was not told to cancel ends in them.
  bool saw_from_source(std::span<const std::byte> bytes);

  /// Bytes on their way to the source's libvirt, before they are forwarded. The offset after the
  /// last byte of a successful answer to Finish, when one ends here.
  std::optional<std::size_t> saw_from_target(std::span<const std::byte> bytes);

  /// One of the directions is not libvirt's protocol: no answer will be found any more.
  bool lost() const;

 private:
  mutable Mutex mutex_;
  RpcFramer calls_ GUARDED_BY(mutex_);
  RpcFramer replies_ GUARDED_BY(mutex_);
  std::deque<RpcHeader> finishes_ GUARDED_BY(mutex_);  // Called and not yet answered.
};

}  // namespace samepage::migrator
