#include <array>
#include <atomic>
#include <optional>
#include <thread>
#include <utility>
#include <vector>

#include <zmq.hpp>
#include <zmq_addon.hpp>

#include "core/bus.h"
#include "core/bus_outbox.h"
#include "core/bus_requests.h"
#include "core/bus_socket.h"
#include "core/log.h"
#include "core/mutex.h"

namespace samepage {
namespace {

constexpr int kReceivedPerRoundMax = 256;

constexpr int kWatchedEvents = ZMQ_EVENT_HANDSHAKE_SUCCEEDED | ZMQ_EVENT_DISCONNECTED |
                               ZMQ_EVENT_HANDSHAKE_FAILED_AUTH |
                               ZMQ_EVENT_HANDSHAKE_FAILED_PROTOCOL |
                               ZMQ_EVENT_HANDSHAKE_FAILED_NO_DETAIL | ZMQ_EVENT_CONNECT_RETRIED;

using TimePoint = std::chrono::steady_clock::time_point;

TimePoint now() {
  return std::chrono::steady_clock::now();
}

}  // namespace

/// The thread that owns the DEALER, and what it shares with callers.
///
/// ZeroMQ itself connects again after a broken connection, but not reliably after a refused
/// handshake, so then the socket is thrown away and a new one is made after a while.
class BusClient::Io {
 public:
  Io(BusClient::Options options, std::shared_ptr<BusOutbox> outbox)
      : options_(std::move(options)),
        outbox_(std::move(outbox)),
        requests_(options_.limits.requests_max),
        trouble_("the placer at " + options_.endpoint + " has not answered yet") {
    open();
  }
  Io(const Io&) = delete;
  Io& operator=(const Io&) = delete;
  ~Io() { close(); }

  void start() {
    thread_ = std::jthread([this] { run(); });
  }

  void close() {
    outbox_->close();
    if (thread_.joinable()) thread_.join();
    requests_.close();
  }

  Result<bus::Envelope> ask(bus::Envelope envelope, Deadline deadline) {
    return requests_.ask(*outbox_, {}, std::move(envelope), deadline);
  }

  Result<void> send(bus::Envelope envelope) {
    if (!connected()) return fail(Errc::kUnavailable, trouble());
    envelope.set_request(0);
    envelope.set_is_reply(false);
    auto posted = outbox_->post({{}, encode(envelope)});
    const bool is_full = !posted && posted.error().code() == Errc::kUnavailable;
    if (is_full && !outbox_->closed()) tell_full(posted.error());
    return posted;
  }

  bool connected() const {
    const MutexLock lock(mutex_);
    return trouble_.empty();
  }

  std::string trouble() const {
    const MutexLock lock(mutex_);
    return trouble_;
  }

 private:
  /// A socket and its monitor, in the order in which they must be destroyed.
  struct Connection {
    Connection(zmq::context_t& context, const BusClient::Options& options)
        : dealer(context, zmq::socket_type::dealer), monitor(context, dealer, kWatchedEvents) {
      set_up_bus_socket(dealer, options.endpoint, options.keys, options.limits);
      dealer.set(zmq::sockopt::curve_serverkey,
                 zmq::buffer(curve_key_bytes(options.server_public_key)));
      dealer.set(zmq::sockopt::immediate, true);
      dealer.connect(options.endpoint);
    }

    zmq::socket_t dealer;
    BusMonitor monitor;
  };

  void open() {
    is_up_ = false;
    connection_.reset();
    connection_.emplace(context_, options_);
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
    std::vector<zmq::pollitem_t> watched = {{nullptr, outbox_->descriptor(), ZMQ_POLLIN, 0}};
    if (connection_) {
      watched.push_back({connection_->dealer.handle(), 0, ZMQ_POLLIN, 0});
      watched.push_back({connection_->monitor.socket().handle(), 0, ZMQ_POLLIN, 0});
    }
    const auto wait = std::chrono::ceil<std::chrono::milliseconds>(next_beat() - now());
    zmq::poll(watched.data(), watched.size(), std::max(wait, std::chrono::milliseconds(0)));
    take_events();
    if (connection_) receive();
    send_posted();
    if (now() >= next_beat()) beat();
  }

  TimePoint next_beat() const { return connection_ ? next_beat_ : reopen_at_; }

  void take_events() {
    while (connection_) {
      const auto event = connection_->monitor.next();
      if (!event) return;
      take_event(*event);
    }
  }

  void take_event(const BusMonitor::Event& event) {
    switch (event.kind) {
      case ZMQ_EVENT_HANDSHAKE_SUCCEEDED:
        return go_up();
      case ZMQ_EVENT_DISCONNECTED:
        return go_down("the connection to the placer at " + options_.endpoint + " was lost");
      case ZMQ_EVENT_CONNECT_RETRIED:
        return go_down("the placer at " + options_.endpoint + " cannot be reached");
      case ZMQ_EVENT_HANDSHAKE_FAILED_AUTH:
        return give_up(
            "the placer does not know this host's key: enrol it with `samepage hosts "
            "enroll NAME '" +
            options_.keys.public_key + "'`");
      default:
        return give_up("the placer at " + options_.endpoint +
                       " did not accept the connection: is its public key still " +
                       options_.server_public_key + "?");
    }
  }

  void go_up() {
    is_up_ = true;
    heard_at_ = now();
    {
      const MutexLock lock(mutex_);
      trouble_.clear();
    }
    log_info("bus connected endpoint={}", options_.endpoint);
    // The placer knows by the first message that we are there.
    beat();
    if (options_.on_connected) options_.on_connected();
  }

  void go_down(std::string reason) {
    const bool was_up = std::exchange(is_up_, false);
    bool is_news = false;
    {
      const MutexLock lock(mutex_);
      is_news = trouble_ != reason;
      trouble_ = reason;
    }
    if (is_news) log_warning("bus disconnected reason={}", reason);
    if (!was_up) return;
    requests_.connection_lost({});
    if (options_.on_disconnected) options_.on_disconnected();
  }

  void give_up(std::string reason) {
    connection_.reset();
    reopen_at_ = now() + options_.limits.reconnect_interval;
    go_down(std::move(reason));
  }

  void receive() {
    for (int i = 0; i < kReceivedPerRoundMax; ++i) {
      std::vector<zmq::message_t> frames;
      if (!zmq::recv_multipart(connection_->dealer, std::back_inserter(frames),
                               zmq::recv_flags::dontwait)) {
        return;
      }
      take_in(frames);
    }
  }

  void take_in(const std::vector<zmq::message_t>& frames) {
    heard_at_ = now();
    auto envelope = decode(frames[0].data(), frames[0].size());
    if (!envelope || frames.size() > 1) {
      if (!std::exchange(is_warned_, true)) log_warning("bus dropped a message of the placer");
      return;
    }
    if (envelope->is_reply()) return requests_.complete({}, *std::move(envelope));
    const bool is_heartbeat = envelope->body_case() == bus::Envelope::BODY_NOT_SET;
    if (is_heartbeat && envelope->request() == 0) return;
    options_.on_message(BusIncoming({}, *std::move(envelope), outbox_));
  }

  void send_posted() {
    for (const BusOutgoing& message : outbox_->take()) {
      const auto sent = send_now(message.bytes);
      if (!sent && is_up_) tell_full(sent.error());
      if (sent && is_full_.exchange(false)) {
        log_info("bus takes messages again endpoint={}", options_.endpoint);
      }
      if (message.request == 0) continue;
      if (sent) {
        requests_.mark_sent(message.request);
      } else {
        requests_.refuse(message.request, sent.error());
      }
    }
  }

  void tell_full(const Error& why) {
    if (is_full_.exchange(true)) return;
    log_warning("bus full, messages left out endpoint={} why=\"{}\"", options_.endpoint,
                why.message());
  }

  Result<void> send_now(const std::string& bytes) {
    if (!is_up_) return fail(Errc::kUnavailable, trouble());
    absorb_commands(connection_->dealer);
    if (connection_->dealer.send(zmq::buffer(bytes), zmq::send_flags::dontwait)) return {};
    return fail(Errc::kUnavailable, "the placer does not keep up with this host's messages");
  }

  void beat() {
    next_beat_ = now() + options_.limits.heartbeat_interval;
    if (!connection_) return open();
    if (!is_up_) return;
    if (now() - heard_at_ > options_.limits.silence_max) {
      return give_up("the placer at " + options_.endpoint + " fell silent");
    }
    // A failure means that much else waits to be sent, which proves us alive as well.
    [[maybe_unused]] const auto sent = send_now(encode({}));
  }

  const BusClient::Options options_;
  const std::shared_ptr<BusOutbox> outbox_;
  BusRequests requests_;
  zmq::context_t context_;

  // The I/O thread's.
  std::optional<Connection> connection_;  // Empty while a refused handshake is waited off.
  bool is_up_ = false;
  bool is_warned_ = false;
  TimePoint next_beat_ = now();
  TimePoint reopen_at_ = now();
  TimePoint heard_at_ = now();

  std::atomic<bool> is_full_ = false;
  mutable Mutex mutex_;
  std::string trouble_ GUARDED_BY(mutex_);
  std::jthread thread_;
};

Result<std::unique_ptr<BusClient>> BusClient::create(Options options) {
  if (!is_curve_key(options.keys.public_key) || !is_curve_key(options.keys.secret_key)) {
    return fail(Errc::kInvalid, "the bus needs a key pair");
  }
  if (!is_curve_key(options.server_public_key)) {
    return fail(Errc::kInvalid, "the placer's public key is no key: it has 64 hexadecimal digits");
  }
  if (!options.on_message) return fail(Errc::kInvalid, "the bus needs a handler of messages");
  auto outbox = TRY(BusOutbox::create(options.limits));
  const std::string endpoint = options.endpoint;
  try {
    auto io = std::make_unique<Io>(std::move(options), std::move(outbox));
    return std::unique_ptr<BusClient>(new BusClient(std::move(io)));
  } catch (const zmq::error_t& error) {
    return fail(Errc::kInvalid, "connect to " + endpoint + ": " + error.what());
  }
}

BusClient::BusClient(std::unique_ptr<Io> io) : io_(std::move(io)) {}
BusClient::~BusClient() = default;

void BusClient::start() {
  io_->start();
}

void BusClient::close() {
  io_->close();
}

Result<bus::Envelope> BusClient::request(bus::Envelope envelope, Deadline deadline) {
  return io_->ask(std::move(envelope), deadline);
}

Result<void> BusClient::send(bus::Envelope envelope) {
  return io_->send(std::move(envelope));
}

bool BusClient::connected() const {
  return io_->connected();
}

std::string BusClient::trouble() const {
  return io_->trouble();
}

}  // namespace samepage
