#pragma once

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "core/clock.h"
#include "core/result.h"
#include "imagestore/fabric.h"
#include "imagestore/store_control.h"

namespace samepage::imagestore {

/// How a client opens the memory of a ticket; tests and benchmarks put something in between.
using OpenRemote = std::function<Result<std::unique_ptr<RemoteMemory>>(
    FabricTicket ticket, FabricAccess access, Deadline expires)>;

/// A store node as a client reaches it.
struct StoreTarget {
  std::string node;    ///< As requests name it; empty: the asked store itself.
  std::string fabric;  ///< "shm" for the store of this host, "ofi" for others.
};

/// A client's background: keeps its leases alive and carries its uploads, so that reading never
/// waits for a server's mind. One thread, which calls the control; a node that does not answer is
/// tried again after a pause that grows.
///
/// Threads: methods from the client's thread. Lifetime: destroying it drops uploads that wait.
class StoreKeeper {
 public:
  struct Options {
    std::chrono::milliseconds call_max{2'000};
    std::chrono::milliseconds pause_min{200};
    std::chrono::milliseconds pause_max{10'000};
    std::size_t upload_bytes_max = 32U << 20U;  ///< Waiting; more is dropped: a cache's right.
    std::size_t batch_bytes_max = 4U << 20U;    ///< One window.
  };

  struct Counts {
    std::uint64_t uploaded = 0;
    std::uint64_t dropped = 0;
  };

  /// An extent to put into a node: an object's bytes.
  struct Upload {
    ObjectName name;
    std::shared_ptr<const std::vector<std::byte>> object;
  };

  /// Borrows the control and the clock.
  StoreKeeper(const Options& options, StoreControl& control, const Clock& clock, OpenRemote open);
  ~StoreKeeper();
  StoreKeeper(const StoreKeeper&) = delete;
  StoreKeeper& operator=(const StoreKeeper&) = delete;

  /// Begins to keep a lease on the target. Does nothing when it does already.
  void keep(const StoreTarget& target);
  void drop(const std::string& node);

  /// A fresh lease that nobody has taken yet.
  std::optional<std::pair<FabricTicket, Deadline>> take_ticket(const std::string& node);

  /// When the lease that was taken last ends, renewed as it is.
  Deadline lease_end(const std::string& node);

  /// The memory of the lease broke: get another.
  void lease_broke(const std::string& node);

  void upload(const std::string& node, Upload upload);
  void recheck(const std::string& node, const ObjectName& name);

  /// Waits until no upload or recheck is under way or waits. False: not by the deadline.
  bool drain(Deadline deadline);

  Counts counts();

 private:
  enum class Phase : std::uint8_t { kWanted, kHeld };
  struct Kept {
    StoreTarget target;
    Phase phase = Phase::kWanted;
    std::uint64_t lease = 0;
    std::uint32_t epoch = 0;
    std::chrono::milliseconds time{0};
    Deadline expires;
    Deadline next_try;
    std::chrono::milliseconds pause{0};
    std::optional<FabricTicket> ticket;
    std::deque<Upload> uploads;
    std::vector<ObjectName> rechecks;
  };
  struct Job {
    std::string node;
    Kept* kept = nullptr;
  };

  void run(const std::stop_token& stop);
  bool work(std::unique_lock<std::mutex>& lock);
  void tend_lease(Kept& kept, std::unique_lock<std::mutex>& lock);
  void open_lease(Kept& kept, std::unique_lock<std::mutex>& lock);
  void renew_lease(Kept& kept, std::unique_lock<std::mutex>& lock);
  void carry(const std::string& node, Kept& kept, std::unique_lock<std::mutex>& lock);
  std::vector<Upload> take_batch(Kept& kept);
  Result<std::uint64_t> upload_batch(const StoreTarget& target, std::uint64_t lease,
                                     const std::vector<Upload>& batch);
  Result<void> write_window(FabricTicket ticket, const std::vector<Upload>& batch);
  Result<void> recheck_batch(const StoreTarget& target, std::uint64_t lease,
                             const std::vector<ObjectName>& names);
  void fall_back(Kept& kept);

  const Options options_;
  StoreControl& control_;
  const Clock& clock_;
  const OpenRemote open_;
  std::mutex mutex_;
  std::condition_variable_any changed_;
  std::map<std::string, std::shared_ptr<Kept>> kept_;
  std::size_t waiting_bytes_ = 0;
  std::size_t busy_ = 0;
  Counts counts_;
  std::jthread thread_;
};

}  // namespace samepage::imagestore
