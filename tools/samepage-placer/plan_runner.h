#pragma once

#include <condition_variable>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <thread>

#include "core/clock.h"
#include "core/result.h"
#include "placer/executor.h"
#include "tools/samepage-placer/bus_carrier.h"
#include "tools/samepage-placer/fleet_state.h"
#include "tools/samepage-placer/ledger.h"

namespace samepage::control {

/// Wakes those who wait for events.
/// Threads: any.
class EventBell {
 public:
  void ring();

  /// Returns when the bell has rung more than `heard` times, or at the deadline; the count so far.
  std::uint64_t wait(std::uint64_t heard, Deadline deadline);

 private:
  std::mutex mutex_;
  std::condition_variable rung_;
  std::uint64_t count_ = 0;
};

/// Carries out the plan that runs, on a thread of its own: one that begin() started, or one that
/// the journal shows as running when this process starts.
///
/// Threads: every method may be called from any thread. Lifetime: what it is given outlives it; the
/// destructor leaves a running migration to the agents and its end to the next process.
class PlanRunner {
 public:
  struct Edges {
    std::string ledger_path;
    FleetState& fleet;
    BusCarrier& carrier;
    EventBell& bell;
    const Clock& clock;
  };

  static Result<std::unique_ptr<PlanRunner>> create(const Edges& edges);
  ~PlanRunner();
  PlanRunner(const PlanRunner&) = delete;
  PlanRunner& operator=(const PlanRunner&) = delete;

  /// Starts a proposed plan; `ledger` is the caller's. Errors as placer::Executor::begin().
  Result<void> begin(placer::PlanId id, Ledger& ledger);

  /// After a report: keeps what the hosts share now beside what the last plan predicted.
  Result<void> note_sharing(Ledger& ledger);

 private:
  PlanRunner(const Edges& edges, std::unique_ptr<Ledger> ledger);
  placer::Executor executor(Ledger& ledger);
  bool wait_for_work(const std::stop_token& stop);
  void run(const std::stop_token& stop);
  void carry_out(placer::PlanId id, const std::stop_token& stop);
  std::uint64_t achieved_pages() const;

  const Edges edges_;
  std::unique_ptr<Ledger> ledger_;  // The thread's.
  std::mutex mutex_;
  std::condition_variable_any begun_;
  bool wake_ = true;                 // Under mutex_; at the start there may be work already.
  placer::PlanId last_;              // Under mutex_: the plan that this process began last.
  std::uint64_t shared_before_ = 0;  // Under mutex_: pages, when it began.
  std::jthread thread_;
};

}  // namespace samepage::control
