#pragma once

#include <string>
#include <utility>

#include "core/clock.h"
#include "core/fd.h"
#include "core/result.h"
#include "imagestore/store_messages.h"

namespace samepage::imagestore {

/// The way from a client to store nodes for what is not reading and writing: leases, windows,
/// publishing, the ring. Threads: one at a time.
class StoreControl {
 public:
  virtual ~StoreControl() = default;

  /// Errors: those of the node's StoreService, and kUnavailable: it cannot be reached. kTimedOut:
  /// it has not answered.
  virtual Result<StoreAnswer> call(const bus::StoreRequest& request, Deadline deadline) = 0;
};

/// Through the socket of this host's agent, which passes on what is for other nodes. Connects at
/// the first call, and again after a connection ended.
class SocketControl final : public StoreControl {
 public:
  explicit SocketControl(std::string path) : path_(std::move(path)) {}

  Result<StoreAnswer> call(const bus::StoreRequest& request, Deadline deadline) override;

 private:
  const std::string path_;
  Fd socket_;
};

/// To a service in this process. Borrows it.
class DirectControl final : public StoreControl {
 public:
  DirectControl(StoreService& service, std::string caller)
      : service_(service), caller_{std::move(caller)} {}
  ~DirectControl() override { service_.forget(caller_); }
  DirectControl(const DirectControl&) = delete;
  DirectControl& operator=(const DirectControl&) = delete;

  Result<StoreAnswer> call(const bus::StoreRequest& request, Deadline) override {
    return service_.serve(caller_, request);
  }

 private:
  StoreService& service_;
  const StoreCaller caller_;
};

}  // namespace samepage::imagestore
