#pragma once

#include <functional>
#include <memory>
#include <utility>

#include "migrator/relay.h"

namespace samepage::migrator {

/// One end of a relay as a session sees it: RelaySource or RelayTarget in programs.
/// Threads: run() once, from one thread; everything else from any thread.
class RelayHalf {
 public:
  virtual ~RelayHalf() = default;

  /// Blocks until the stream has passed or failed; both of its connections are shut down then.
  virtual Result<void> run() = 0;
  virtual void stop() = 0;
  virtual RelayCounters counters() const = 0;

  /// The whole stream was verified and handed to the target's QEMU.
  virtual bool delivered() const = 0;
};

/// Makes a session's relay when both of its connections are there; they outlive it.
using MakeRelay = std::function<Result<std::unique_ptr<RelayHalf>>(RelayEnds)>;

/// A RelaySource or a RelayTarget as a RelayHalf.
template <class Relay>
class RelayHalfOf final : public RelayHalf {
 public:
  explicit RelayHalfOf(std::unique_ptr<Relay> relay) : relay_(std::move(relay)) {}

  Result<void> run() override { return relay_->run(); }
  void stop() override { relay_->stop(); }
  RelayCounters counters() const override { return relay_->counters(); }
  bool delivered() const override { return relay_->delivered(); }

 private:
  const std::unique_ptr<Relay> relay_;
};

}  // namespace samepage::migrator
