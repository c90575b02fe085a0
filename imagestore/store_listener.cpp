#include "imagestore/store_listener.h"

#include <algorithm>
#include <cerrno>
#include <cstdint>
#include <system_error>
#include <utility>
#include <vector>

#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include "core/log.h"
#include "imagestore/store_socket.h"

namespace samepage::imagestore {
namespace {

constexpr auto kAnswerMax = std::chrono::seconds(1);

bus::StoreReply failure_reply(const Error& error) {
  bus::StoreReply reply;
  *reply.mutable_failure() = to_failure(error);
  return reply;
}

}  // namespace

class StoreListener::Loop {
 public:
  Loop(Options options, StoreService& service, Fd socket, Fd stop)
      : options_(std::move(options)),
        service_(service),
        socket_(std::move(socket)),
        stop_(std::move(stop)) {}

  ~Loop() {
    for (const Connection& connection : connections_) service_.forget(connection.caller);
    ::unlink(options_.path.c_str());
  }
  Loop(const Loop&) = delete;
  Loop& operator=(const Loop&) = delete;

  void stop() {
    const std::uint64_t one = 1;
    static_cast<void>(::write(stop_.get(), &one, sizeof(one)) > 0);
  }

  void run() {
    std::vector<pollfd> waited;
    while (true) {
      waited.assign({{.fd = stop_.get(), .events = POLLIN, .revents = 0},
                     {.fd = socket_.get(), .events = POLLIN, .revents = 0}});
      for (const Connection& connection : connections_) {
        waited.push_back({.fd = connection.socket.get(), .events = POLLIN, .revents = 0});
      }
      if (::poll(waited.data(), waited.size(), -1) < 0 && errno != EINTR) return;
      if (waited[0].revents != 0) return;
      serve_ready(std::span(waited).subspan(2));
      if (waited[1].revents != 0) accept_one();
    }
  }

 private:
  struct Connection {
    Fd socket;
    StoreCaller caller;
  };

  void accept_one() {
    Fd socket(::accept4(socket_.get(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
    if (!socket) return;
    ucred credentials{};
    socklen_t size = sizeof(credentials);
    const bool is_known =
        ::getsockopt(socket.get(), SOL_SOCKET, SO_PEERCRED, &credentials, &size) == 0;
    const bool is_allowed = is_known && (credentials.uid == 0 || credentials.uid == ::geteuid() ||
                                         options_.uids.contains(credentials.uid));
    const std::string name = "uid " + std::to_string(credentials.uid) + " pid " +
                             std::to_string(credentials.pid) + " #" + std::to_string(next_++);
    if (!is_allowed) {
      log_warning("store connection refused caller=\"{}\" why=\"not one of the store's users\"",
                  name);
      return;
    }
    if (connections_.size() >= options_.connections_max) {
      log_warning("store connection refused caller=\"{}\" why=\"too many\"", name);
      return;
    }
    connections_.push_back({.socket = std::move(socket), .caller = {name}});
  }

  void serve_ready(std::span<const pollfd> waited) {
    std::vector<bool> ended(connections_.size());
    for (std::size_t i = 0; i < waited.size(); ++i) {
      if (waited[i].revents == 0) continue;
      const auto served = serve_one(connections_[i]);
      if (served) continue;
      ended[i] = true;
      service_.forget(connections_[i].caller);
    }
    std::size_t kept = 0;
    for (std::size_t i = 0; i < connections_.size(); ++i) {
      if (ended[i]) continue;
      if (kept != i) connections_[kept] = std::move(connections_[i]);
      ++kept;
    }
    connections_.resize(kept);
  }

  /// An error ends the connection.
  Result<void> serve_one(Connection& connection) {
    const auto deadline = std::chrono::steady_clock::now() + kAnswerMax;
    const auto frame = TRY(receive_frame(connection.socket.get(), deadline));
    const auto request = parse_store_request(frame.bytes);
    auto answer = request ? service_.serve(connection.caller, *request)
                          : Result<StoreAnswer>(tl::unexpected(request.error()));
    const auto reply = answer ? std::move(answer->reply) : failure_reply(answer.error());
    const std::string bytes = reply.SerializeAsString();
    TRY(send_frame(connection.socket.get(), std::as_bytes(std::span(bytes)),
                   answer ? answer->descriptor.get() : -1, deadline));
    const bool is_offence = !answer && answer.error().code() != Errc::kUnavailable &&
                            answer.error().code() != Errc::kTimedOut;
    if (!is_offence) return {};
    log_warning("store connection closed caller=\"{}\" why=\"{}\"", connection.caller.name,
                answer.error().message());
    return tl::unexpected(answer.error());
  }

  const Options options_;
  StoreService& service_;
  Fd socket_;
  Fd stop_;
  std::vector<Connection> connections_;
  std::uint64_t next_ = 1;
};

Result<std::unique_ptr<StoreListener>> StoreListener::create(const Options& options,
                                                             StoreService& service) {
  Fd socket = TRY(listen_store(options.path));
  Fd stop(::eventfd(0, EFD_CLOEXEC));
  if (!stop) return fail(Errc::kIo, "make an event: " + std::generic_category().message(errno));
  auto loop = std::make_unique<Loop>(options, service, std::move(socket), std::move(stop));
  return std::unique_ptr<StoreListener>(new StoreListener(std::move(loop)));
}

StoreListener::StoreListener(std::unique_ptr<Loop> loop)
    : loop_(std::move(loop)), thread_([this] { loop_->run(); }) {}

StoreListener::~StoreListener() {
  loop_->stop();
  thread_.join();
}

}  // namespace samepage::imagestore
