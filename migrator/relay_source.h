#pragma once

#include <memory>

#include "core/result.h"
#include "core/sharing_domain.h"
#include "migrator/relay.h"
#include "migrator/session_secret.h"
#include "migrator/stretch_sink.h"

namespace samepage::migrator {

/// The source host's half of a migration relay: takes QEMU's outgoing stream, names the pages that
/// the target has, compresses the rest, and forwards what the target's QEMU answers.
///
/// Invariant: what it sends stands for exactly the bytes that QEMU wrote, in order. It understands
/// QEMU's stream only to save bytes; a stream that it does not understand passes unchanged.
///
/// Threads: run() uses its caller's thread and several of its own; stop(), counters() and
/// delivered() may be called from any thread.
class RelaySource final {
 public:
  /// `sink`, when there is one, is borrowed and outlives the relay. kInvalid: an option is out of
  /// its range.
  static Result<std::unique_ptr<RelaySource>> create(const RelayOptions& options, RelayEnds ends,
                                                     const SharingDomain& domain,
                                                     const SessionSecret& secret,
                                                     StretchSink* sink = nullptr);

  /// Relays until QEMU has closed its side and the target has delivered everything. Once only.
  /// Both connections are shut down when it returns, so on every error QEMU sees its stream break
  /// and the guest goes on running here.
  /// kUnavailable: QEMU or the target broke off, or stop() was called. kTimedOut: one of them
  /// stalled. kCorrupt: the target said what no target says. kInvalid: it speaks another version.
  Result<void> run();

  /// Makes run() return soon, also when it has not begun yet.
  void stop();

  RelayCounters counters() const;

  /// The target has verified the whole stream and handed it to its QEMU.
  bool delivered() const;

  ~RelaySource();
  RelaySource(const RelaySource&) = delete;
  RelaySource& operator=(const RelaySource&) = delete;

 private:
  class Impl;
  explicit RelaySource(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace samepage::migrator
