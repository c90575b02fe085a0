#pragma once

#include <cstdint>
#include <vector>

#include "placer/decision.h"
#include "placer/scenario.h"

namespace samepage::placer {

/// The moves of a simulation that were decided and have not ended: as many at once as the policy's
/// limits let go on, at the speed of its links. Outlived by the policy. Threads: none of its own.
class SimulatedMoves {
 public:
  struct Flight {
    Step step;
    double started_s = 0;
    double ends_s = 0;
  };

  explicit SimulatedMoves(const ScenarioPolicy& policy) : policy_(policy) {}

  bool empty() const { return waiting_.empty() && flights_.empty(); }
  bool has_waiting() const { return !waiting_.empty(); }

  void add(Step step) { waiting_.push_back(std::move(step)); }

  /// Starts those that may, in the plan's order: a move waits for those before it that touch one of
  /// its hosts.
  void launch(double now_s);

  /// Takes out those that have ended.
  std::vector<Flight> land(double now_s);

  /// The VM, or the host, is gone, and with it its moves.
  void forget_vm(std::uint32_t vm);
  void forget_host(std::uint32_t host);

  /// Every move: those under way, then those that wait.
  template <class Visit>
  void visit(const Visit& visit) const {
    for (const Flight& flight : flights_) visit(flight.step);
    for (const Step& step : waiting_) visit(step);
  }

 private:
  const ScenarioPolicy& policy_;
  std::vector<Step> waiting_;
  std::vector<Flight> flights_;
};

}  // namespace samepage::placer
