#pragma once

#include <span>

#include "core/bus.pb.h"
#include "core/clock.h"
#include "core/fd.h"
#include "core/result.h"
#include "imagestore/arena.h"
#include "imagestore/fabric.h"

namespace samepage::imagestore {

/// Who asks, as the store's socket or the bus knows it: never by the asker's own word.
struct StoreCaller {
  std::string name;  ///< For the log: "uid 0 pid 4711", or an enrolled host's name.
};

/// A reply with the shared memory that goes along with it.
struct StoreAnswer {
  bus::StoreReply reply;
  Fd descriptor;
};

/// What a store node does on request: leases, windows, publishing. Bytes of extents never pass
/// here.
/// Threads: any. Errors: kInvalid: malformed. kNotFound: a lease, window or node that is not (any
/// more). kUnavailable: too much to do; try later. kCorrupt: what was written is not what it is
/// called.
class StoreService {
 public:
  virtual ~StoreService() = default;

  virtual Result<StoreAnswer> serve(const StoreCaller& caller,
                                    const bus::StoreRequest& request) = 0;

  /// The caller is gone, and with it everything that was its own.
  virtual void forget(const StoreCaller& caller) = 0;
};

bus::StoreTicket to_message(const FabricTicket& ticket);
FabricTicket from_message(const bus::StoreTicket& message, Fd descriptor);

/// kInvalid: not the 32 bytes of a name.
Result<ObjectName> read_name(const std::string& bytes);

/// kCorrupt: not a message.
Result<bus::StoreRequest> parse_store_request(std::span<const std::byte> bytes);
Result<bus::StoreReply> parse_store_reply(std::span<const std::byte> bytes);

bus::Failure to_failure(const Error& error);
Error from_failure(const bus::Failure& failure);

}  // namespace samepage::imagestore
