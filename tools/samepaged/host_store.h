#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "core/bus.h"
#include "core/clock.h"
#include "core/mutex.h"
#include "core/sharing_domain.h"
#include "imagestore/store_listener.h"
#include "imagestore/store_node.h"

namespace samepage::agent {

/// This host's part of the image store: a store node, when the host lends memory to one; and, for
/// the processes of this host, the way to every other node of the fleet.
///
/// Disks ask on the store's socket. What is for this host's node it does itself; what is for
/// another node goes to the placer, which passes it on to that node's agent. Only asking goes this
/// way: the bytes of extents are read and written one-sidedly.
///
/// Invariant: a caller's name says who he is by the kernel's or the bus's word: "uid ..." for
/// processes of this host, "host ..." for other hosts.
/// Threads: any. Lifetime: listen() last; the destructor ends every connection.
class HostStore final : public imagestore::StoreService {
 public:
  struct Options {
    std::string socket_path;
    std::uint64_t node_mib = 0;   ///< Memory lent to the store; 0: no node here.
    bool use_huge_pages = false;  ///< For that memory, when enough are free.
    std::string provider = "tcp;ofi_rxm";
    std::string address;   ///< At which other hosts reach this one.
    std::string key_file;  ///< Of images that were imported without the placer; may come later.
    std::chrono::milliseconds ask_max{1'500};
  };

  /// Asks the placer. As BusClient::request().
  using Ask = std::function<Result<bus::Envelope>(bus::Envelope, Deadline)>;

  /// Errors as StoreNode::create()'s.
  static Result<std::unique_ptr<HostStore>> create(const Options& options, Ask ask,
                                                   const Clock& clock);
  HostStore(const HostStore&) = delete;
  HostStore& operator=(const HostStore&) = delete;

  /// Opens the socket. Errors as StoreListener::create()'s.
  Result<void> listen();

  Result<imagestore::StoreAnswer> serve(const imagestore::StoreCaller& caller,
                                        const bus::StoreRequest& request) override;
  void forget(const imagestore::StoreCaller& caller) override;

  /// A request of another host, passed on by the placer.
  Result<bus::Envelope> serve_host(const bus::StoreRequest& request);

  /// The host's own name, and the keys of the domains whose extents may be kept here.
  void set_welcome(const std::string& host, const std::map<std::string, SharingDomain>& domains);

  void set_ring(const bus::StoreRing& ring);

  /// For the placer: what the node holds, and what was read here since the last report.
  bus::StoreReport take_report();

 private:
  HostStore(const Options& options, Ask ask, const Clock& clock);

  Result<imagestore::StoreAnswer> pass_on(const bus::StoreRequest& request);
  Result<imagestore::StoreAnswer> ask_warm(const bus::StoreRequest::AskWarm& request);
  void note_reads(const bus::StoreRequest::TellReads& request);
  void note_warm(const std::string& version) REQUIRES(mutex_);
  bool read_local_key() REQUIRES(mutex_);
  void give_keys() REQUIRES(mutex_);
  bool is_for_own_node(const bus::StoreRequest& request);

  const Options options_;
  const Ask ask_;
  const Clock& clock_;
  std::unique_ptr<imagestore::StoreNode> node_;  ///< None: this host lends no memory.
  Mutex mutex_;
  std::string host_ GUARDED_BY(mutex_);
  std::vector<imagestore::DomainKeys> fleet_keys_ GUARDED_BY(mutex_);
  std::optional<imagestore::DomainKeys> local_key_ GUARDED_BY(mutex_);
  bus::StoreRing ring_ GUARDED_BY(mutex_);
  std::map<std::string, std::chrono::steady_clock::time_point> warm_ GUARDED_BY(mutex_);
  std::map<std::string, std::uint64_t> reads_ GUARDED_BY(mutex_);  ///< By the extent's name.
  std::unique_ptr<imagestore::StoreListener> listener_;  // Last: its thread calls the rest.
};

}  // namespace samepage::agent
