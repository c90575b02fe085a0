#include <array>
#include <atomic>
#include <map>
#include <set>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

#include <zmq.hpp>
#include <zmq_addon.hpp>

#include "core/bus.h"
#include "core/bus_doorkeeper.h"
#include "core/bus_outbox.h"
#include "core/bus_requests.h"
#include "core/bus_socket.h"
#include "core/log.h"
#include "core/mutex.h"

namespace samepage {
namespace {

// So that a flood of messages cannot keep the thread from sending.
constexpr int kReceivedPerRoundMax = 256;

constexpr std::size_t kRetiredRoutesMax = 8;

using TimePoint = std::chrono::steady_clock::time_point;

TimePoint now() {
  return std::chrono::steady_clock::now();
}

}  // namespace

/// The thread that owns the ROUTER, and what it shares with callers.
///
/// Routing ids are those that the ROUTER makes up. One that a client chooses for itself proves
/// nothing, so it must not be able to take over another's: ZMQ_ROUTER_HANDOVER stays off, and it is
/// the authenticated key that makes a connection a host's route.
class BusServer::Io {
 public:
  explicit Io(BusServer::Options options, std::shared_ptr<BusOutbox> outbox)
      : options_(std::move(options)),
        outbox_(std::move(outbox)),
        requests_(options_.limits.requests_max),
        doorkeeper_(context_),
        router_(context_, zmq::socket_type::router),
        monitor_(context_, router_, ZMQ_EVENT_DISCONNECTED) {
    set_up_bus_socket(router_, options_.endpoint, options_.keys, options_.limits);
    router_.set(zmq::sockopt::router_mandatory, true);
    router_.set(zmq::sockopt::curve_server, true);
    router_.set(zmq::sockopt::zap_domain, BusDoorkeeper::kDomain);
    router_.bind(options_.endpoint);
    endpoint_ = router_.get(zmq::sockopt::last_endpoint);
    thread_ = std::jthread([this] { run(); });
  }
  Io(const Io&) = delete;
  Io& operator=(const Io&) = delete;
  ~Io() { close(); }

  const std::string& endpoint() const { return endpoint_; }
  BusDoorkeeper& doorkeeper() { return doorkeeper_; }

  /// Has the I/O thread look again at who is enrolled, before it sends anything posted later.
  void review() {
    review_wanted_ = true;
    outbox_->nudge();
  }

  void close() {
    outbox_->close();
    if (thread_.joinable()) thread_.join();
    requests_.close();
  }

  Result<bus::Envelope> ask(const std::string& host, bus::Envelope envelope, Deadline deadline) {
    return requests_.ask(*outbox_, host, std::move(envelope), deadline);
  }

  Result<void> send(const std::string& host, bus::Envelope envelope) {
    if (!last_seen(host)) return not_connected(host);
    envelope.set_request(0);
    envelope.set_is_reply(false);
    return outbox_->post({host, encode(envelope)});
  }

  std::optional<TimePoint> last_seen(const std::string& host) const {
    const MutexLock lock(mutex_);
    const auto found = last_seen_.find(host);
    if (found == last_seen_.end()) return std::nullopt;
    return found->second;
  }

 private:
  struct Peer {
    std::string key;
    std::string route;
    std::set<std::string> retired_routes;  // Of older connections with the same key.
    bool is_warned_of = false;
    bool is_full = false;
  };

  static tl::unexpected<Error> not_connected(const std::string& host) {
    return fail(Errc::kUnavailable, "host " + host + " is not connected");
  }

  void run() {
    while (!outbox_->closed()) {
      try {
        round();
      } catch (const zmq::error_t& error) {
        if (error.num() == EINTR) continue;
        log_error("bus failed error={}", error.what());
        outbox_->close();
        requests_.close();
      }
    }
  }

  void round() {
    std::array<zmq::pollitem_t, 4> watched = {{
        {router_.handle(), 0, ZMQ_POLLIN, 0},
        {doorkeeper_.socket().handle(), 0, ZMQ_POLLIN, 0},
        {monitor_.socket().handle(), 0, ZMQ_POLLIN, 0},
        {nullptr, outbox_->descriptor(), ZMQ_POLLIN, 0},
    }};
    const auto wait = std::chrono::ceil<std::chrono::milliseconds>(next_beat_ - now());
    zmq::poll(watched.data(), watched.size(), std::max(wait, std::chrono::milliseconds(0)));
    doorkeeper_.serve();
    receive();
    if (review_wanted_.exchange(false)) forget_strangers();
    send_posted();
    bool any_lost = false;
    while (monitor_.next()) any_lost = true;
    if (any_lost || now() >= next_beat_) beat();
  }

  void receive() {
    for (int i = 0; i < kReceivedPerRoundMax; ++i) {
      std::vector<zmq::message_t> frames;
      if (!zmq::recv_multipart(router_, std::back_inserter(frames), zmq::recv_flags::dontwait)) {
        return;
      }
      if (frames.size() >= 2) take_in(frames);
    }
  }

  void take_in(const std::vector<zmq::message_t>& frames) {
    const char* const user_id = zmq_msg_gets(frames[1].handle(), "User-Id");
    const std::string key = user_id == nullptr ? "" : user_id;
    const auto host = doorkeeper_.host_of(key);
    if (!host) return;
    note(*host, key, frames[0].to_string());
    if (frames.size() > 2) return warn_of(*host, "a message has more than one part");
    auto envelope = decode(frames[1].data(), frames[1].size());
    if (!envelope) return warn_of(*host, envelope.error().message());
    if (envelope->is_reply()) return requests_.complete(*host, *std::move(envelope));
    const bool is_heartbeat = envelope->body_case() == bus::Envelope::BODY_NOT_SET;
    if (is_heartbeat && envelope->request() == 0) return;
    options_.on_message(BusIncoming(*host, *std::move(envelope), outbox_));
  }

  /// Learns from a message by which connection its host can be reached.
  void note(const std::string& host, const std::string& key, const std::string& route) {
    const auto known = peers_.find(host);
    if (known != peers_.end() && known->second.route != route) {
      Peer& peer = known->second;
      const bool is_late = peer.key == key && peer.retired_routes.contains(route);
      if (is_late) return;
      auto retired = std::move(peer.retired_routes);
      if (retired.size() >= kRetiredRoutesMax) retired.clear();
      retired.insert(peer.route);
      lose(host, "its key connected again");
      peers_[host].retired_routes = std::move(retired);
    }
    const bool is_new = !peers_.contains(host) || peers_[host].route.empty();
    Peer& peer = peers_[host];
    peer.key = key;
    peer.route = route;
    {
      const MutexLock lock(mutex_);
      last_seen_[host] = now();
    }
    if (!is_new) return;
    log_info("bus connected host={}", host);
    if (options_.on_connected) options_.on_connected(host);
  }

  void lose(const std::string& host, std::string_view reason) {
    peers_.erase(host);
    {
      const MutexLock lock(mutex_);
      last_seen_.erase(host);
    }
    requests_.connection_lost(host);
    log_info("bus disconnected host={} reason={}", host, reason);
    if (options_.on_disconnected) options_.on_disconnected(host);
  }

  void warn_of(const std::string& host, std::string_view reason) {
    if (std::exchange(peers_[host].is_warned_of, true)) return;
    log_warning("bus dropped a message host={} reason={}", host, reason);
  }

  void send_posted() {
    auto messages = outbox_->take();
    if (messages.empty()) return;
    absorb_commands(router_);
    for (BusOutgoing& message : messages) {
      const auto sent = send_to(message.host, std::move(message.bytes));
      if (message.request == 0) continue;
      if (sent) {
        requests_.mark_sent(message.request);
      } else {
        requests_.refuse(message.request, sent.error());
      }
    }
  }

  Result<void> send_to(const std::string& host, std::string bytes) {
    const auto peer = peers_.find(host);
    if (peer == peers_.end()) return not_connected(host);
    const std::array<zmq::const_buffer, 2> frames = {zmq::buffer(peer->second.route),
                                                     zmq::buffer(bytes)};
    try {
      const bool sent = zmq::send_multipart(router_, frames, zmq::send_flags::dontwait).has_value();
      if (!std::exchange(peer->second.is_full, !sent) && !sent) {
        log_warning("bus full, messages left out host={}", host);
      }
      if (sent) return {};
      return fail(Errc::kUnavailable, "host " + host + " does not keep up with its messages");
    } catch (const zmq::error_t& error) {
      if (error.num() != EHOSTUNREACH) throw;
    }
    lose(host, "its connection closed");
    return not_connected(host);
  }

  void forget_strangers() {
    for (const std::string& host : peer_names()) {
      if (doorkeeper_.host_of(peers_[host].key) != host) lose(host, "its key was forgotten");
    }
  }

  /// Tells every host that we live, and finds those that went without a word.
  void beat() {
    next_beat_ = now() + options_.limits.heartbeat_interval;
    absorb_commands(router_);
    for (const std::string& host : peer_names()) {
      const auto seen = last_seen(host);
      if (seen && now() - *seen > options_.limits.silence_max) {
        lose(host, "silent for too long");
        continue;
      }
      // A failure has been handled: the host was lost, or it has more than enough to read.
      [[maybe_unused]] const auto sent = send_to(host, encode({}));
    }
  }

  std::vector<std::string> peer_names() const {
    std::vector<std::string> names;
    names.reserve(peers_.size());
    for (const auto& [host, peer] : peers_) names.push_back(host);
    return names;
  }

  const BusServer::Options options_;
  const std::shared_ptr<BusOutbox> outbox_;
  BusRequests requests_;
  zmq::context_t context_;
  BusDoorkeeper doorkeeper_;
  zmq::socket_t router_;
  BusMonitor monitor_;
  std::string endpoint_;
  std::map<std::string, Peer> peers_;  // The I/O thread's.
  TimePoint next_beat_ = now();
  std::atomic<bool> review_wanted_ = false;
  mutable Mutex mutex_;
  std::map<std::string, TimePoint> last_seen_ GUARDED_BY(mutex_);
  std::jthread thread_;
};

Result<std::unique_ptr<BusServer>> BusServer::create(Options options) {
  if (!is_curve_key(options.keys.public_key) || !is_curve_key(options.keys.secret_key)) {
    return fail(Errc::kInvalid, "the bus needs a key pair");
  }
  if (!options.on_message) return fail(Errc::kInvalid, "the bus needs a handler of messages");
  auto outbox = TRY(BusOutbox::create(options.limits));
  const std::string endpoint = options.endpoint;
  try {
    auto io = std::make_unique<Io>(std::move(options), std::move(outbox));
    return std::unique_ptr<BusServer>(new BusServer(std::move(io)));
  } catch (const zmq::error_t& error) {
    const bool malformed = error.num() == EINVAL || error.num() == EPROTONOSUPPORT;
    return fail(malformed ? Errc::kInvalid : Errc::kIo,
                "listen at " + endpoint + ": " + error.what());
  }
}

BusServer::BusServer(std::unique_ptr<Io> io) : io_(std::move(io)) {}
BusServer::~BusServer() = default;

void BusServer::close() {
  io_->close();
}

std::string BusServer::endpoint() const {
  return io_->endpoint();
}

Result<void> BusServer::enroll(const std::string& host, const std::string& public_key) {
  TRY(io_->doorkeeper().enroll(host, public_key));
  io_->review();
  return {};
}

Result<void> BusServer::forget(const std::string& host) {
  TRY(io_->doorkeeper().forget(host));
  io_->review();
  return {};
}

Result<bus::Envelope> BusServer::request(const std::string& host, bus::Envelope envelope,
                                         Deadline deadline) {
  return io_->ask(host, std::move(envelope), deadline);
}

Result<void> BusServer::send(const std::string& host, bus::Envelope envelope) {
  return io_->send(host, std::move(envelope));
}

std::optional<std::chrono::steady_clock::time_point> BusServer::last_seen(
    const std::string& host) const {
  return io_->last_seen(host);
}

}  // namespace samepage
