#pragma once

#include <condition_variable>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <thread>

#include "core/clock.h"
#include "core/result.h"
#include "placer/cooldown.h"
#include "placer/planner.h"
#include "tools/samepage-placer/fleet_state.h"
#include "tools/samepage-placer/ledger.h"
#include "tools/samepage-placer/plan_runner.h"

namespace samepage::control {

/// Looks after the fleet by itself, as the policy says: writes down what it would do (shadow),
/// proposes it (recommend) or does it (automatic).
///
/// Invariant: one plan at a time; a VM that was moved lately, by a plan or by somebody else, is
/// left alone until it has rested, so that nobody is fought. What it finds the same as before it
/// does not write down again. Threads: every method may be called from any thread. Lifetime:
/// borrows everything it is given.
class Steward {
 public:
  struct Edges {
    std::string ledger_path;
    FleetState& fleet;
    PlanRunner& runner;
    EventBell& bell;
    const Clock& clock;
  };

  static Result<std::unique_ptr<Steward>> create(const Edges& edges);
  ~Steward();
  Steward(const Steward&) = delete;
  Steward& operator=(const Steward&) = delete;

  /// Looks at once.
  void wake();

 private:
  Steward(const Edges& edges, std::unique_ptr<Ledger> ledger);
  void run(const std::stop_token& stop);
  Result<placer::Policy> look();
  Result<void> learn_moves(const placer::Fleet& fleet, const placer::Policy& policy);
  void tell(const std::string& kind, const std::string& text, const placer::Vm& vm);
  Result<void> act(placer::Plan plan, const placer::Policy& policy);
  std::map<std::string, std::string> resting(const placer::Fleet& fleet) const;

  const Edges edges_;
  std::unique_ptr<Ledger> ledger_;  // The thread's.
  placer::Cooldowns cooldowns_{placer::Cooldowns::Options{}};
  std::map<std::string, std::string> host_of_;  // By UUID, as seen last.
  placer::PlanId learned_;                      // Plans up to this one have set their VMs to rest.
  placer::PlanId last_;                         // The last plan that it wrote down, and its moves.
  std::string last_moves_;
  std::mutex mutex_;
  std::condition_variable_any woken_;
  bool wake_ = false;  // Under mutex_.
  std::jthread thread_;
};

}  // namespace samepage::control
