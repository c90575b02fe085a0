#pragma once

#include <array>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <list>
#include <optional>
#include <string>

#include "core/bus.h"
#include "core/mutex.h"
#include "placer/carrier.h"
#include "tools/samepage-placer/fleet_state.h"

namespace samepage::control {

/// The agents, as the executor uses them: every call is a request on the bus. Outcomes come as
/// notices and, should one be lost, are asked for.
///
/// Threads: Carrier's calls from any thread; the on_... methods from the bus's
/// inbox.
class BusCarrier final : public placer::Carrier {
 public:
  /// What is borrowed outlives the carrier.
  BusCarrier(BusServer& bus, const FleetState& fleet) : bus_(bus), fleet_(fleet) {}

  Result<void> prepare(const placer::MoveOrder& order, Deadline deadline) override;
  Result<void> start(const placer::MoveOrder& order, Deadline deadline) override;
  Result<placer::MoveOutcome> wait(
      const placer::MoveOrder& order,
      const std::function<void(const placer::MoveProgress&)>& on_progress, std::stop_token stop,
      Deadline deadline) override;
  Result<void> cancel(const placer::MoveOrder& order, Deadline deadline) override;
  Result<placer::SessionStatus> query(const placer::MoveOrder& order, Deadline deadline) override;
  Result<placer::Presence> locate(const std::string& host, const VmId& vm,
                                  Deadline deadline) override;
  Result<void> settle(const std::string& host, const VmId& vm, placer::Verdict verdict,
                      Deadline deadline) override;

  void on_update(const bus::MigrationUpdate& update);
  void on_outcome(const bus::MigrationOutcome& outcome);

 private:
  /// A migration that is being prepared or carried out.
  struct Session {
    std::string id;
    std::string secret;
    std::string address;
    std::uint32_t port = 0;
    std::optional<placer::MoveProgress> progress;
    std::optional<placer::MoveOutcome> outcome;
  };

  struct News {
    std::optional<placer::MoveProgress> progress;
    std::optional<placer::MoveOutcome> outcome;
  };

  static constexpr std::size_t kSessionsMax = 1'024;

  /// What the source said of the migration meanwhile; neither when the deadline came first.
  News await_news(const std::string& id, Deadline deadline);
  Session* find(const std::string& id) REQUIRES(mutex_);
  Session& add(Session session) REQUIRES(mutex_);
  void forget(const std::string& id);

  /// Which template the target is to map.
  void put_template(const VmId& id, bus::PrepareTarget& request) const;

  BusServer& bus_;
  const FleetState& fleet_;
  Mutex mutex_;
  std::condition_variable_any changed_;
  std::list<Session> sessions_ GUARDED_BY(mutex_);  // Oldest first.
};

}  // namespace samepage::control
