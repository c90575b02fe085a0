#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include <zmq.hpp>

#include "core/bus.h"

namespace samepage {

/// What both ends of the bus ask of their sockets: limits, heartbeats, the key, no waiting at the
/// end; IPv6 unless the endpoint is an IPv4 address. Internal to the bus. Throws zmq::error_t.
void set_up_bus_socket(zmq::socket_t& socket, const std::string& endpoint, const CurveKeyPair& keys,
                       const BusLimits& limits);

/// Reports the connection events of one socket. Lifetime: must be destroyed before its socket.
class BusMonitor {
 public:
  struct Event {
    std::uint16_t kind = 0;  ///< ZMQ_EVENT_...
    std::uint32_t value = 0;
  };

  /// Throws zmq::error_t.
  BusMonitor(zmq::context_t& context, zmq::socket_t& socket, int events);
  BusMonitor(const BusMonitor&) = delete;
  BusMonitor& operator=(const BusMonitor&) = delete;
  ~BusMonitor();

  zmq::socket_ref socket() { return events_; }

  /// The next event that waits, if any.
  std::optional<Event> next();

 private:
  zmq::socket_t& observed_;
  zmq::socket_t events_;
};

/// Handles the commands that ZeroMQ's I/O thread has left for the socket, such as a new connection.
/// Without it a send right after an event may miss the connection that the event told of.
void absorb_commands(zmq::socket_t& socket);

}  // namespace samepage
