#include "core/bus_socket.h"

#include <atomic>
#include <cstring>
#include <string_view>
#include <vector>

#include <zmq_addon.hpp>

namespace samepage {
namespace {

constexpr int kReconnectIntervalFactorMax = 10;

int milliseconds(std::chrono::milliseconds time) {
  return static_cast<int>(time.count());
}

bool is_ipv4_address(std::string_view endpoint) {
  constexpr std::string_view kScheme = "tcp://";
  return endpoint.starts_with(kScheme) && endpoint.size() > kScheme.size() &&
         endpoint[kScheme.size()] != '*' &&
         endpoint.find_first_not_of("0123456789.:*", kScheme.size()) == std::string_view::npos;
}

}  // namespace

void set_up_bus_socket(zmq::socket_t& socket, const std::string& endpoint, const CurveKeyPair& keys,
                       const BusLimits& limits) {
  socket.set(zmq::sockopt::linger, 0);
  socket.set(zmq::sockopt::ipv6, !is_ipv4_address(endpoint));
  socket.set(zmq::sockopt::sndhwm, static_cast<int>(limits.queue_messages_max));
  socket.set(zmq::sockopt::rcvhwm, static_cast<int>(limits.queue_messages_max));
  socket.set(zmq::sockopt::maxmsgsize, static_cast<std::int64_t>(limits.message_bytes_max));
  socket.set(zmq::sockopt::heartbeat_ivl, milliseconds(limits.heartbeat_interval));
  socket.set(zmq::sockopt::heartbeat_timeout, milliseconds(limits.silence_max));
  socket.set(zmq::sockopt::heartbeat_ttl, milliseconds(limits.silence_max));
  socket.set(zmq::sockopt::handshake_ivl, milliseconds(limits.silence_max));
  socket.set(zmq::sockopt::reconnect_ivl, milliseconds(limits.reconnect_interval));
  socket.set(zmq::sockopt::reconnect_ivl_max,
             milliseconds(limits.reconnect_interval) * kReconnectIntervalFactorMax);
  socket.set(zmq::sockopt::curve_publickey, zmq::buffer(curve_key_bytes(keys.public_key)));
  socket.set(zmq::sockopt::curve_secretkey, zmq::buffer(curve_key_bytes(keys.secret_key)));
}

BusMonitor::BusMonitor(zmq::context_t& context, zmq::socket_t& socket, int events)
    : observed_(socket), events_(context, zmq::socket_type::pair) {
  // An inproc name stays taken for a while after its socket was closed.
  static std::atomic<std::uint64_t> count = 0;
  const std::string name = "inproc://samepage.monitor." + std::to_string(++count);
  if (zmq_socket_monitor(observed_.handle(), name.c_str(), events) != 0) throw zmq::error_t();
  events_.set(zmq::sockopt::linger, 0);
  events_.connect(name);
}

BusMonitor::~BusMonitor() {
  zmq_socket_monitor(observed_.handle(), nullptr, 0);
}

std::optional<BusMonitor::Event> BusMonitor::next() {
  std::vector<zmq::message_t> frames;
  if (!zmq::recv_multipart(events_, std::back_inserter(frames), zmq::recv_flags::dontwait)) {
    return std::nullopt;
  }
  Event event;
  if (frames[0].size() >= sizeof event.kind + sizeof event.value) {
    std::memcpy(&event.kind, frames[0].data(), sizeof event.kind);
    std::memcpy(&event.value, frames[0].data<std::byte>() + sizeof event.kind, sizeof event.value);
  }
  return event;
}

void absorb_commands(zmq::socket_t& socket) {
  [[maybe_unused]] const auto events = socket.get(zmq::sockopt::events);
}

}  // namespace samepage
