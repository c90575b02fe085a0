#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <unordered_set>
#include <vector>

#include "core/clock.h"
#include "core/mutex.h"
#include "imagestore/arena.h"
#include "imagestore/fabric.h"
#include "imagestore/ofi_fabric.h"
#include "imagestore/store_messages.h"

namespace samepage::imagestore {

/// A store node: an arena, the fabrics that lead to it, and who may use them until when.
///
/// A lease lets one client read the whole arena for a time, over one fabric, under a key of its
/// own; it lives by being renewed, and dies at once with revoke(), its caller, or the epoch. Under
/// a lease a client writes extents into windows. What is published has been verified here, so a
/// client that is killed in mid-upload, or lies, leaves nothing that anybody reads.
///
/// Invariant: the index names only extents that were what their name says when they came; no window
/// is open on bytes that the index names.
/// Threads: any, but for the destructor. Losing a node loses nothing: it is a cache.
class StoreNode final : public StoreService {
 public:
  struct Options {
    Arena::Options arena = {};
    std::optional<OfiServer::Options> ofi = {};  ///< None: this host only.
    std::chrono::milliseconds lease_time{30'000};
    std::chrono::milliseconds window_time{10'000};
    std::size_t leases_max = 1'500;
    std::size_t windows_per_lease_max = 4;
  };

  /// Errors as Arena's and OfiServer's.
  static Result<std::unique_ptr<StoreNode>> create(const Options& options,
                                                   std::vector<DomainKeys> keys,
                                                   const Clock& clock);

  Result<StoreAnswer> serve(const StoreCaller& caller, const bus::StoreRequest& request) override;
  void forget(const StoreCaller& caller) override;

  /// The domains whose extents can be published here.
  void set_keys(std::vector<DomainKeys> keys);

  /// Ends every lease of a caller, at once.
  void revoke(const std::string& caller);

  /// Ends the leases of all callers of whom `is_out` says so, at once.
  void revoke_if(const std::function<bool(const std::string& caller)>& is_out);

  /// Ends every lease, and begins another epoch.
  void revoke_all();

  /// Takes back what has expired. Requests do it too; call it now and then.
  void sweep();

  bus::StoreReport report();

  bool has_huge_pages() const { return arena_->has_huge_pages(); }

  /// For tests: the arena's memory, to damage it.
  std::span<std::byte> memory();

 private:
  struct Lease {
    std::string caller;
    std::uint32_t epoch = 0;
    FabricServer* fabric = nullptr;
    std::uint64_t key = 0;
    Deadline expires;
    std::size_t windows = 0;
  };
  struct Window {
    std::uint64_t lease = 0;
    FabricServer* fabric = nullptr;
    std::uint64_t key = 0;
    Arena::Region region;
    Deadline expires;
    std::vector<ObjectName> coming;
  };
  using Leases = std::map<std::uint64_t, Lease>;
  using Windows = std::map<std::uint64_t, Window>;

  StoreNode(const Options& options, std::vector<DomainKeys> keys, const Clock& clock,
            std::unique_ptr<Arena> arena);

  Result<StoreAnswer> dispatch(const StoreCaller& caller, const bus::StoreRequest& request)
      REQUIRES(mutex_);
  Result<StoreAnswer> open_lease(const StoreCaller& caller,
                                 const bus::StoreRequest::OpenLease& request) REQUIRES(mutex_);
  Result<StoreAnswer> renew(const StoreCaller& caller, const bus::StoreRequest::RenewLease& request)
      REQUIRES(mutex_);
  Result<StoreAnswer> open_window(const StoreCaller& caller,
                                  const bus::StoreRequest::OpenWindow& request) REQUIRES(mutex_);
  Result<StoreAnswer> publish(const StoreCaller& caller, const bus::StoreRequest::Publish& request)
      REQUIRES(mutex_);
  Result<StoreAnswer> recheck(const StoreCaller& caller, const bus::StoreRequest::Recheck& request)
      REQUIRES(mutex_);
  Result<Leases::iterator> find_lease(const StoreCaller& caller, std::uint64_t lease)
      REQUIRES(mutex_);
  Result<IndexEntry> describe(const ObjectName& name, std::span<const std::byte> bytes) const
      REQUIRES(mutex_);
  Result<std::vector<IndexEntry>> describe_all(const Arena::Region& region,
                                               const bus::StoreRequest::Publish& request) const
      REQUIRES(mutex_);
  Result<std::vector<ObjectName>> choose_wanted(const bus::StoreRequest::OpenWindow& request,
                                                bus::StoreReply::Window& window) REQUIRES(mutex_);
  void stop_expecting(const Window& window) REQUIRES(mutex_);
  Leases::iterator end_lease(Leases::iterator lease) REQUIRES(mutex_);
  Windows::iterator end_window(Windows::iterator window) REQUIRES(mutex_);
  void sweep_locked() REQUIRES(mutex_);

  const Options options_;
  const Clock& clock_;
  Mutex mutex_;
  std::vector<DomainKeys> keys_ GUARDED_BY(mutex_);
  const std::unique_ptr<Arena> arena_;
  std::vector<std::unique_ptr<FabricServer>> fabrics_ GUARDED_BY(mutex_);
  Leases leases_ GUARDED_BY(mutex_);
  Windows windows_ GUARDED_BY(mutex_);
  std::unordered_set<ObjectName> coming_ GUARDED_BY(mutex_);  ///< Of all windows.
  std::uint32_t epoch_ GUARDED_BY(mutex_) = 1;
  std::uint64_t refused_ GUARDED_BY(mutex_) = 0;
};

}  // namespace samepage::imagestore
