#pragma once

#include <memory>
#include <string>
#include <vector>

#include "core/bus.h"
#include "core/clock.h"
#include "core/mutex.h"
#include "core/result.h"
#include "core/task_queue.h"
#include "tools/samepage-placer/bus_carrier.h"
#include "tools/samepage-placer/fleet_state.h"
#include "tools/samepage-placer/ledger.h"
#include "tools/samepage-placer/options.h"
#include "tools/samepage-placer/plan_runner.h"
#include "tools/samepage-placer/standbys.h"
#include "tools/samepage-placer/steward.h"
#include "tools/samepage-placer/store_directory.h"
#include "tools/samepage-placer/store_relay.h"
#include "tools/samepage-placer/storms.h"
#include "tools/samepage-placer/templates.h"

namespace samepage::control {

/// The fleet's control plane without its HTTP face: takes what agents say, and offers what the API
/// asks for.
///
/// Threads: the methods for the API may be called from any thread. The bus's thread only hands
/// messages on to `inbox_`.
class Placer {
 public:
  /// Makes the placer's key pair at the first start. Errors: the state folder or the bus's endpoint
  /// cannot be used; the message says why.
  static Result<std::unique_ptr<Placer>> create(const Options& options, const Clock& clock);
  ~Placer();
  Placer(const Placer&) = delete;
  Placer& operator=(const Placer&) = delete;

  /// A connection to the journal for the calling thread.
  Result<std::unique_ptr<Ledger>> open_ledger() const;

  placer::Fleet fleet() const { return fleet_.fleet(); }

  /// Lets a host's agent in. kInvalid: the name or the key is unusable, or belongs to another host.
  Result<void> enroll(const std::string& host, const std::string& public_key);

  /// kNotFound: no such host. kInvalid: it holds VMs.
  Result<void> forget(const std::string& host);

  struct ScanFailure {
    std::string host;
    std::string message;
  };
  struct ScanResult {
    std::size_t hosts = 0;  ///< That answered with a fresh report.
    std::vector<ScanFailure> failed;
  };

  enum class Freshness : std::uint8_t {
    kScanned,  ///< Every host scans its guests first.
    kStates,   ///< Where the VMs are and in what state, with the fingerprints that there are.
  };

  /// Asks every host for a report and waits for the answers.
  ScanResult ask_hosts(Freshness freshness, Deadline deadline);

  /// Has a host's agent do something to a disk. Errors: the agent's; kUnavailable: it is not there.
  Result<bus::DiskReply> ask_disk(const std::string& host, const bus::DiskRequest& request,
                                  Deadline deadline);

  Result<void> begin(placer::PlanId id, Ledger& ledger) { return runner_->begin(id, ledger); }

  /// A host's label; an empty value takes it away. Errors as PolicyStore::set_label().
  Result<void> set_label(const std::string& host, const std::string& label,
                         const std::string& value, Ledger& ledger);

  /// What an application says of itself. Errors as Roster::tell().
  Result<void> tell(const VmId& vm, const placer::AppFigure& figure) {
    return fleet_.tell(vm, figure);
  }

  /// The placer's own looks at the fleet read the policy anew: it has changed.
  void policy_changed() { steward_->wake(); }

  /// Has agents give up the moves that run, if any do; the plan's cancellation comes first.
  /// kUnavailable, kTimedOut: a host cannot be asked; its move goes on.
  Result<void> stop_move(placer::PlanId id, Ledger& ledger, Deadline deadline);

  EventBell& bell() { return bell_; }
  Templates& templates() { return *templates_; }
  Storms& storms() { return *storms_; }
  Standbys& standbys() { return *standbys_; }

  StoreDirectory& stores() { return *stores_; }

  /// Errors as StoreDirectory's. Every agent is told of the new ring.
  Result<void> join_store(const imagestore::RingMember& member);
  Result<void> leave_store(const std::string& node);

 private:
  Placer(const Options& options, const Clock& clock);

  Result<void> restore();
  Result<void> refresh_domains(Ledger& ledger);
  Result<void> ask_host(const std::string& host, Freshness freshness, Deadline deadline);
  void handle(BusIncoming& incoming);
  Result<bus::Envelope> greet(const std::string& host, const bus::Hello& hello);
  Result<bus::Welcome> welcome(const std::string& host, Ledger& ledger);
  Result<void> keep_samples(Ledger& ledger);
  Result<void> keep_asked_samples();
  void take_report(const std::string& host, const bus::HostReport& report);
  void send_ring(const std::string& host);
  void send_ring_to_all();
  void ask_whole(const std::string& host);
  Result<void> make_domains(const std::string& host, const bus::HostReport& report);

  const Options options_;
  const Clock& clock_;
  const std::string ledger_path_;
  FleetState fleet_;
  EventBell bell_;
  std::unique_ptr<Ledger> ledger_;  // The inbox's.
  Mutex keeping_;                   // Who has held it finds all samples of before in the ledger.
  std::unique_ptr<TaskQueue> inbox_;
  std::unique_ptr<BusServer> bus_;
  std::unique_ptr<BusCarrier> carrier_;
  std::unique_ptr<PlanRunner> runner_;
  std::unique_ptr<Steward> steward_;
  std::unique_ptr<StoreDirectory> stores_;
  std::unique_ptr<StoreRelay> store_relay_;
  std::unique_ptr<Templates> templates_;
  std::unique_ptr<Storms> storms_;
  std::unique_ptr<Standbys> standbys_;
};

}  // namespace samepage::control
