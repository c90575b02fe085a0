#pragma once

#include <chrono>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "core/bus.h"
#include "core/clock.h"
#include "core/database.h"
#include "core/mutex.h"
#include "imagestore/ring.h"

namespace samepage::control {

/// What the placer knows of the fleet's image store: the ring, kept in an SQLite file of its own,
/// and, in memory, what each host's node holds, which image versions it has read lately, and which
/// extents are read most.
///
/// Invariant: a ring is on the disk before anybody is told of it, and its version only grows.
/// Threads: any.
class StoreDirectory {
 public:
  /// Errors as Database::open().
  static Result<std::unique_ptr<StoreDirectory>> open(const std::string& path, const Clock& clock);
  StoreDirectory(const StoreDirectory&) = delete;
  StoreDirectory& operator=(const StoreDirectory&) = delete;

  imagestore::Ring ring() const;

  /// The ring for agents, with the hot extents; without the enrolled hosts.
  bus::StoreRing message() const;

  /// kInvalid: the host lends no memory, has not said so yet, or is in the ring; or the weight is
  /// not between 0.01 and 100.
  Result<imagestore::Ring> join(const imagestore::RingMember& member);

  /// kNotFound: it is no store node.
  Result<imagestore::Ring> leave(const std::string& node);

  /// True when the set of hot extents is another now.
  bool take_report(const std::string& host, const bus::StoreReport& report);

  /// A host that is gone for good; leaves the ring, too.
  Result<void> forget(const std::string& host);

  /// Hosts that have read the version and lend memory, those that were named least often first.
  bus::WarmHosts warm_hosts(const std::string& version, const std::string& asker);

  struct Node {
    std::string name;
    std::optional<imagestore::RingMember> member;  ///< None: it lends memory, but did not join.
    std::size_t slots = 0;
    std::optional<bus::StoreReport> report;
    std::chrono::milliseconds report_age{0};
  };
  struct Status {
    std::uint64_t version = 0;
    std::vector<Node> nodes;  ///< By name.
    std::size_t hot_extents = 0;
  };
  Status status() const;

 private:
  struct Known {
    bus::StoreReport report;
    std::chrono::steady_clock::time_point at;
    std::uint64_t named = 0;  ///< As a neighbour.
  };

  StoreDirectory(Database database, const Clock& clock)
      : clock_(clock), database_(std::move(database)) {}
  Result<void> load() REQUIRES(mutex_);
  Result<void> keep(const imagestore::Ring& ring) REQUIRES(mutex_);
  bool choose_hot() REQUIRES(mutex_);

  const Clock& clock_;
  mutable Mutex mutex_;
  Database database_ GUARDED_BY(mutex_);
  imagestore::Ring ring_ GUARDED_BY(mutex_);
  std::map<std::string, Known> hosts_ GUARDED_BY(mutex_);
  std::map<std::string, double> heat_ GUARDED_BY(mutex_);  ///< By extent; halves with each report.
  std::vector<std::string> hot_ GUARDED_BY(mutex_);        ///< Sorted.
};

}  // namespace samepage::control
