#pragma once

#include <cstdint>
#include <functional>
#include <map>

#include "core/bus.h"

namespace samepage::agent {

/// Which part of the agent answers which request of the placer: each part adds its own.
///
/// Threads: filled before the bus is opened and only read afterwards, then from any thread.
class RequestTable {
 public:
  using Body = bus::Envelope::BodyCase;
  using Answer = std::function<Result<bus::Envelope>(const bus::Envelope& request)>;

  enum class Queue : std::uint8_t {
    kDesk,     ///< Answered at once; never waits for a guest's memory or for another host.
    kScanner,  ///< Looks at guests' memory, one request at a time.
    kDisks,    ///< Works on a disk of a VM, in the order of requests for each.
    kBoots,    ///< Boots VMs, a few at a time.
  };

  /// At most one answer per body.
  void add(Body body, Answer answer, Queue queue = Queue::kDesk);

  Queue queue_of(const bus::Envelope& request) const;

  /// kInvalid: nobody here answers such a request. Otherwise what the answer says.
  Result<bus::Envelope> answer(const bus::Envelope& request) const;

 private:
  struct Entry {
    Answer answer;
    Queue queue;
  };
  std::map<Body, Entry> entries_;
};

/// The reply that only says that it was done.
bus::Envelope done();

}  // namespace samepage::agent
