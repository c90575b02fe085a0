#pragma once

#include <cstdint>
#include <functional>
#include <stop_token>
#include <string>

#include "core/clock.h"
#include "core/hypervisor.h"
#include "core/result.h"

namespace samepage::placer {

/// One migration that two agents are asked to carry out. The session's secret is made by the
/// carrier, lives as long as the session, and is kept nowhere.
struct MoveOrder {
  std::string session;  ///< 32 hexadecimal characters, new for every attempt.
  VmId vm;
  std::string name;
  std::string sharing_domain;
  std::string source;
  std::string target;
  bool paused = false;  ///< By its owner, when the move was planned.
  MigrateMode mode{};
};

struct MoveProgress {
  std::string phase;
  std::uint64_t stream_bytes = 0;
  std::uint64_t wire_bytes = 0;
  std::uint64_t page_refs = 0;
  std::uint64_t bytes_remaining = 0;
  std::uint64_t disk_bytes = 0;
};

/// What a migration did, as far as its source can tell.
struct MoveFigures {
  std::uint64_t stream_bytes = 0;  ///< Out of the source's QEMU.
  std::uint64_t wire_bytes = 0;    ///< Both directions, all channels, TLS included.
  std::uint64_t page_refs = 0;
  std::uint64_t page_literals = 0;
  std::uint64_t zero_pages = 0;
  std::uint64_t pages_resent = 0;
  std::uint64_t downtime_us = 0;
  std::uint64_t total_us = 0;
  std::uint64_t template_pages = 0;  ///< That the VM goes on sharing with its template.
  std::uint64_t disk_bytes = 0;      ///< Of disks that went along, before compression.
};

enum class Side : std::uint8_t { kUnknown, kSource, kTarget };

struct MoveOutcome {
  Side runs_on = Side::kUnknown;
  std::string error;  ///< Empty when the VM runs on the target.
  MoveFigures figures;
};

/// What the source's agent knows of a session.
struct SessionStatus {
  enum class Kind : std::uint8_t { kGoesOn, kEnded, kNotKnown };
  Kind kind = Kind::kNotKnown;
  MoveOutcome outcome;  ///< Of a session that ended.
};

/// A VM on one host, by that host's own answer.
enum class Presence : std::uint8_t { kAbsent, kRunning, kPaused, kOther };

enum class Verdict : std::uint8_t {
  kResume,   ///< The other host has let go of it.
  kDiscard,  ///< The other host runs it.
};

/// The agents of two hosts, as the executor uses them. The placer's bus in programs, a simulated
/// fleet in tests/fakes/.
///
/// Threads: any, at the same time for different VMs where the executor's limits let several moves
/// go on. Every call ends at its deadline, or at once when the host cannot be asked; wait() also
/// ends when `stop` is requested. Errors of every call: kUnavailable: the host is not connected;
/// nothing was asked. kTimedOut: it was asked and did not answer: whether it acted is unknown.
/// Others: it refused; nothing changed.
class Carrier {
 public:
  virtual ~Carrier() = default;

  /// Has the target get ready to receive the VM.
  virtual Result<void> prepare(const MoveOrder& order, Deadline deadline) = 0;

  /// Has the source start to send it to the target that was prepared.
  virtual Result<void> start(const MoveOrder& order, Deadline deadline) = 0;

  /// Waits for the end of a migration that was started, in this process's life or in an earlier
  /// one. kTimedOut: it goes on still, or `stop` was requested. kUnavailable: the source was lost.
  virtual Result<MoveOutcome> wait(const MoveOrder& order,
                                   const std::function<void(const MoveProgress&)>& on_progress,
                                   std::stop_token stop, Deadline deadline) = 0;

  /// Asks the source to give up. The migration ends soon after, one way or the other.
  virtual Result<void> cancel(const MoveOrder& order, Deadline deadline) = 0;

  /// Asks the source what became of a session.
  virtual Result<SessionStatus> query(const MoveOrder& order, Deadline deadline) = 0;

  /// Asks a host, now, whether it has the VM.
  virtual Result<Presence> locate(const std::string& host, const VmId& vm, Deadline deadline) = 0;

  /// Ends the doubt about a paused copy. kInvalid: the copy is not paused.
  virtual Result<void> settle(const std::string& host, const VmId& vm, Verdict verdict,
                              Deadline deadline) = 0;
};

}  // namespace samepage::placer
