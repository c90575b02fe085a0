#pragma once

#include <chrono>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <span>
#include <stop_token>
#include <string>

#include "core/clock.h"
#include "core/hypervisor.h"
#include "core/mutex.h"
#include "core/sharing_domain.h"
#include "fingerprinter/guest_watch.h"

namespace samepage::agent {

using Domains = std::map<std::string, SharingDomain>;

/// The watches of this host's guests: one pass over all of them costs no more CPU time than it may.
///
/// Invariant: what known() gives is of a completed scan, with the moment when it began.
/// Threads: rescan() one at a time, the others from any thread.
class GuestWatches {
 public:
  struct Options {
    /// Of the host's CPU time, in cores, 0 < share <= 64: so many guests at a time (rounded up)
    /// share it. Passes over guests that did not change end long before they reach it.
    double cpu_share = 0.5;
  };

  struct Known {
    fingerprinter::Fingerprint fingerprint;
    std::chrono::steady_clock::time_point at;
    std::string tracker;        ///< ChangeTracker::name().
    bool is_mergeable = false;  ///< KSM looks at this guest's RAM.
  };

  GuestWatches(const Options& options, const Clock& clock) : options_(options), clock_(clock) {}

  /// Looks at every guest whose sharing domain is known and which nobody holds; forgets those that
  /// are not among `vms`, and what it knew of guests of unknown domains. A guest that ends, leaves
  /// or changes its size meanwhile keeps what was known of it before, until the next pass.
  void rescan(std::span<const VmInfo> vms, const Domains& domains);

  std::optional<Known> known(const VmId& vm) const;

  /// Takes hands off a guest until the result is destroyed: when this returns, its writes are not
  /// tracked and nothing reads it. For as long as a migration goes on: QEMU itself may need the
  /// kernel's notes of its writes (post-copy), and the guest its CPU time. Outlived by this object.
  [[nodiscard]] std::shared_ptr<void> hold(const VmId& vm);

  /// Ends a rescan() that is under way and lets none begin.
  void stop();

 private:
  /// One guest. Its mutex is taken before `mutex_`, and held while the guest is looked at.
  struct Entry {
    Mutex mutex;
    std::unique_ptr<fingerprinter::GuestWatch> watch GUARDED_BY(mutex);
    bool is_mergeable GUARDED_BY(mutex) = false;
    std::stop_source stop;  // Guarded by GuestWatches::mutex_.
  };

  void forget_others(std::span<const VmInfo> vms, const Domains& domains);
  void look_at(const VmInfo& vm, HashSeed seed, fingerprinter::ScanOptions options);
  Result<Known> scan(Entry& entry, const VmInfo& vm, HashSeed seed,
                     const fingerprinter::ScanOptions& options) REQUIRES(entry.mutex);
  std::shared_ptr<Entry> entry_of(const VmId& vm);
  std::optional<std::stop_token> begin(const VmId& vm, const Entry& entry) const;
  void let_go(const VmId& vm);

  const Options options_;
  const Clock& clock_;
  mutable Mutex mutex_;
  bool stopped_ GUARDED_BY(mutex_) = false;
  std::map<VmId, std::shared_ptr<Entry>> entries_ GUARDED_BY(mutex_);
  std::map<VmId, Known> known_ GUARDED_BY(mutex_);
  std::multiset<VmId> held_ GUARDED_BY(mutex_);
};

}  // namespace samepage::agent
