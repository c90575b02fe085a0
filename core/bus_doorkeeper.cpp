#include "core/bus_doorkeeper.h"

#include <array>
#include <span>
#include <vector>

#include <zmq_addon.hpp>

#include "core/curve_keys.h"
#include "core/log.h"

namespace samepage {
namespace {

// Frames of a ZAP request.
constexpr std::size_t kRequestId = 1;
constexpr std::size_t kAddress = 3;
constexpr std::size_t kMechanism = 5;
constexpr std::size_t kCredentials = 6;
constexpr std::size_t kFrames = 7;

// A stranger who makes up keys must not fill the log.
constexpr std::size_t kRefusedKeysMax = 1000;

std::string public_key_of(const std::vector<zmq::message_t>& frames) {
  if (frames.size() != kFrames) return {};
  if (frames[kMechanism].to_string_view() != "CURVE") return {};
  if (frames[kCredentials].size() != kCurveKeyBytes) return {};
  return curve_key_text(std::span<const std::uint8_t, kCurveKeyBytes>(
      frames[kCredentials].data<std::uint8_t>(), kCurveKeyBytes));
}

}  // namespace

BusDoorkeeper::BusDoorkeeper(zmq::context_t& context) : socket_(context, zmq::socket_type::rep) {
  socket_.set(zmq::sockopt::linger, 0);
  socket_.bind("inproc://zeromq.zap.01");
}

Result<void> BusDoorkeeper::enroll(const std::string& host, const std::string& public_key) {
  if (host.empty()) return fail(Errc::kInvalid, "a host needs a name");
  if (!is_curve_key(public_key)) {
    return fail(Errc::kInvalid, "this is no public key: it has 64 hexadecimal digits");
  }
  const MutexLock lock(mutex_);
  const auto holder = host_by_key_.find(public_key);
  if (holder != host_by_key_.end() && holder->second != host) {
    return fail(Errc::kInvalid, "this key is enrolled as host " + holder->second);
  }
  const auto old = key_by_host_.find(host);
  if (old != key_by_host_.end()) host_by_key_.erase(old->second);
  key_by_host_[host] = public_key;
  host_by_key_[public_key] = host;
  return {};
}

Result<void> BusDoorkeeper::forget(const std::string& host) {
  const MutexLock lock(mutex_);
  const auto found = key_by_host_.find(host);
  if (found == key_by_host_.end()) return fail(Errc::kNotFound, "no host is called " + host);
  host_by_key_.erase(found->second);
  key_by_host_.erase(found);
  return {};
}

std::optional<std::string> BusDoorkeeper::host_of(std::string_view public_key) const {
  const MutexLock lock(mutex_);
  const auto found = host_by_key_.find(public_key);
  if (found == host_by_key_.end()) return std::nullopt;
  return found->second;
}

bool BusDoorkeeper::is_news(const std::string& key) {
  return refused_keys_.size() < kRefusedKeysMax && refused_keys_.insert(key).second;
}

void BusDoorkeeper::serve() {
  std::vector<zmq::message_t> frames;
  while (zmq::recv_multipart(socket_, std::back_inserter(frames), zmq::recv_flags::dontwait)) {
    const std::string key = public_key_of(frames);
    const auto host = host_of(key);
    if (!host && frames.size() == kFrames && is_news(key)) {
      log_warning("bus refused a connection from={} public_key={} reason=not enrolled",
                  frames[kAddress].to_string_view(), key);
    }
    const std::string request_id = frames.size() > kRequestId ? frames[kRequestId].to_string() : "";
    const std::array<zmq::const_buffer, 6> reply = {
        zmq::buffer(std::string_view("1.0")),
        zmq::buffer(request_id),
        zmq::buffer(std::string_view(host ? "200" : "400")),
        zmq::buffer(std::string_view(host ? "" : "not enrolled")),
        zmq::buffer(std::string_view(host ? key : std::string_view())),
        zmq::const_buffer(),
    };
    zmq::send_multipart(socket_, reply, zmq::send_flags::dontwait);
    frames.clear();
  }
}

}  // namespace samepage
