#pragma once

#include <array>
#include <memory>

#include "core/bus.h"
#include "core/clock.h"
#include "core/task_queue.h"

namespace samepage::control {

/// Passes requests to store nodes on from one agent to another. A node that does not answer holds
/// up its own quarter of the nodes at most, and for no longer than a request may take.
///
/// Threads: pass_on() from any; four of its own. Lifetime: borrows bus and clock; stop() first, or
/// close the bus, so that nothing waits for it.
class StoreRelay {
 public:
  StoreRelay(BusServer& bus, const Clock& clock);

  /// Answers `incoming`, a StoreRequest, sooner or later.
  void pass_on(std::shared_ptr<BusIncoming> incoming);

  void stop();

 private:
  Result<bus::Envelope> ask(const BusIncoming& incoming);

  BusServer& bus_;
  const Clock& clock_;
  std::array<std::unique_ptr<TaskQueue>, 4> queues_;  ///< By node.
};

}  // namespace samepage::control
