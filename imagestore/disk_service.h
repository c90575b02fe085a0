#pragma once

#include <memory>
#include <string>

#include "core/bus.h"
#include "core/result.h"
#include "imagestore/disk.h"

namespace samepage::imagestore {

/// The control socket of a disk's own process, where the host's agent asks how it is and has it
/// committed: bus::DiskRequest and DiskReply, one a message, several connections at once.
///
/// A commit is a Freeze and then a Commit on the same connection; when the connection ends in
/// between, what was frozen is let go. In the same way a move is the connection's that began it:
/// with its end it is as if it had never begun.
/// Threads: its own, one for each connection. Lifetime: borrows the disk; the destructor waits for
/// a commit under way.
class DiskService final {
 public:
  /// Errors: listen_store()'s.
  static Result<std::unique_ptr<DiskService>> create(const std::string& path, Disk& disk);
  ~DiskService();
  DiskService(const DiskService&) = delete;
  DiskService& operator=(const DiskService&) = delete;

 private:
  class Impl;
  explicit DiskService(std::unique_ptr<Impl> impl);

  std::unique_ptr<Impl> impl_;
};

/// A connection to a disk's control socket, for its agent. Threads: one at a time.
class DiskConnection final {
 public:
  /// kUnavailable: nobody listens there.
  static Result<DiskConnection> open(const std::string& path);

  /// The answer, or the failure that it has. kUnavailable: the process is gone. kTimedOut.
  Result<bus::DiskReply> call(const bus::DiskRequest& request, Deadline deadline);

 private:
  explicit DiskConnection(Fd socket) : socket_(std::move(socket)) {}

  Fd socket_;
};

/// The part of a disk's state that its own process knows.
void put_status(const Disk::Status& status, bus::DiskState& state);

}  // namespace samepage::imagestore
