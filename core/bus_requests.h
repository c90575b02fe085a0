#pragma once

#include <cstddef>
#include <cstdint>
#include <future>
#include <map>
#include <string>

#include "core/bus.h"
#include "core/bus_outbox.h"
#include "core/mutex.h"
#include "core/result.h"

namespace samepage {

/// The bytes of an Envelope as it goes over the wire.
std::string encode(const bus::Envelope& envelope);

/// kCorrupt: these bytes are no Envelope.
Result<bus::Envelope> decode(const void* data, std::size_t size);

/// Carries an Error as core/bus.proto's Failure and back; an unknown code comes back as kIo.
bus::Failure to_failure(const Error& error);
Error to_error(const bus::Failure& failure);

/// Questions of ours that wait for their answers. Internal to the bus.
///
/// A request's id starts at a random number, so that an answer meant for an earlier process of the
/// same host matches nothing; an answer counts only when it comes from the host that was asked.
/// Threads: any.
class BusRequests {
 public:
  explicit BusRequests(std::size_t requests_max);

  /// Posts the question and waits. Errors as BusServer::request().
  Result<bus::Envelope> ask(BusOutbox& outbox, const std::string& host, bus::Envelope envelope,
                            Deadline deadline);

  /// The I/O thread's side of a request: it went to the socket, it was answered, it cannot be sent.
  void mark_sent(std::uint64_t id);
  void complete(const std::string& host, bus::Envelope reply);
  void refuse(std::uint64_t id, Error error);

  /// The connection is gone: whoever waits for an answer from this host learns that none will come.
  void connection_lost(const std::string& host);

  /// Ends every wait, and every later one at once, with kUnavailable.
  void close();

 private:
  struct Pending {
    std::string host;
    bool sent = false;
    std::promise<Result<bus::Envelope>> answer;
  };

  Result<std::future<Result<bus::Envelope>>> add(std::uint64_t id, const std::string& host);
  void remove(std::uint64_t id);
  std::uint64_t next_id();

  const std::size_t requests_max_;
  Mutex mutex_;
  std::map<std::uint64_t, Pending> pending_ GUARDED_BY(mutex_);
  std::uint64_t last_id_ GUARDED_BY(mutex_);
  bool closed_ GUARDED_BY(mutex_) = false;
};

}  // namespace samepage
