#pragma once

#include <cstddef>
#include <memory>
#include <set>
#include <string>
#include <thread>

#include <sys/types.h>

#include "core/result.h"
#include "imagestore/store_messages.h"

namespace samepage::imagestore {

/// A store's UNIX socket: processes of this host ask it for leases and windows. A connection is one
/// caller, known by the credentials that the kernel vouches for; when it ends, its leases do.
///
/// Invariant: who sends what is no request, or names a lease that is not his, is answered, cut off
/// and logged. Threads: one of its own, in which the service is called.
/// Lifetime: borrows the service; the destructor ends every connection.
class StoreListener {
 public:
  struct Options {
    std::string path;           ///< Of the socket.
    std::set<uid_t> uids = {};  ///< Who may connect, besides root and this process's own user.
    std::size_t connections_max = 1'500;
  };

  /// kIo, kInvalid, kUnavailable: as listen_store().
  static Result<std::unique_ptr<StoreListener>> create(const Options& options,
                                                       StoreService& service);
  ~StoreListener();
  StoreListener(const StoreListener&) = delete;
  StoreListener& operator=(const StoreListener&) = delete;

 private:
  class Loop;
  explicit StoreListener(std::unique_ptr<Loop> loop);

  std::unique_ptr<Loop> loop_;
  std::jthread thread_;
};

}  // namespace samepage::imagestore
