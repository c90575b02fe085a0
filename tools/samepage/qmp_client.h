#pragma once

#include <string>
#include <utility>

#include "core/clock.h"
#include "core/fd.h"
#include "core/result.h"

namespace samepage::cli {

/// QEMU's machine protocol (QMP) on a socket: one command at a time. Events are passed over.
class QmpClient {
 public:
  /// Takes QEMU's greeting and leaves its negotiation mode. kUnavailable: QEMU has ended.
  /// kTimedOut.
  static Result<QmpClient> greet(Fd socket, Deadline deadline);

  /// Has a command without arguments done. kInvalid: QEMU refused it, the message is QEMU's.
  /// kUnavailable: QEMU has ended. kTimedOut: QEMU did not answer.
  Result<void> execute(const std::string& command, Deadline deadline);

 private:
  explicit QmpClient(Fd socket) : socket_(std::move(socket)) {}

  Result<std::string> read_line(Deadline deadline);

  Fd socket_;
  std::string pending_;
};

}  // namespace samepage::cli
