#include "migrator/control_forwarder.h"

#include <utility>

#include "core/log.h"

namespace samepage::migrator {

struct ControlForwarder::Connection {
  FinishWatch watch;
  SocketStream* source = nullptr;    // Owned by the pair.
  std::unique_ptr<StreamPair> pair;  // Last: its threads use what stands above.
};

Result<std::unique_ptr<ControlForwarder>> ControlForwarder::create(
    ControlForwarderOptions options, Dial dial, std::function<void()> on_finish) {
  auto listener = TRY(SocketListener::listen_unix(options.path));
  return std::unique_ptr<ControlForwarder>(new ControlForwarder(
      std::move(options), std::move(listener), std::move(dial), std::move(on_finish)));
}

ControlForwarder::ControlForwarder(ControlForwarderOptions options,
                                   std::unique_ptr<SocketListener> listener, Dial dial,
                                   std::function<void()> on_finish)
    : options_(std::move(options)),
      dial_(std::move(dial)),
      on_finish_(std::move(on_finish)),
      listener_(std::move(listener)),
      acceptor_([this] { accept_all(); }) {}

ControlForwarder::~ControlForwarder() {
  stop();
}

void ControlForwarder::stop() {
  listener_->stop();
  if (acceptor_.joinable()) acceptor_.join();
  std::list<Connection> connections;
  {
    const MutexLock lock(mutex_);
    connections.swap(connections_);
  }
  // Destroying a connection joins its threads, which take no lock of ours.
}

void ControlForwarder::accept_all() {
  for (;;) {
    auto socket = listener_->accept(options_.deadline);
    if (!socket) return;
    serve(std::move(*socket));
  }
}

void ControlForwarder::serve(Fd socket) {
  {
    const MutexLock lock(mutex_);
    connections_.remove_if([](const Connection& connection) { return connection.pair->done(); });
    if (connections_.size() >= options_.connections_max) {
      log_warning("turned a libvirt connection away path={} connections_max={}", options_.path,
                  options_.connections_max);
      return;
    }
  }
  auto far = dial_();
  if (!far) {
    log_warning("could not forward a libvirt connection path={} error=\"{}\"", options_.path,
                far.error().message());
    return;
  }
  auto near = std::make_unique<SocketStream>(std::move(socket));

  const MutexLock lock(mutex_);
  Connection& connection = connections_.emplace_back();
  connection.source = near.get();
  StreamPairHooks hooks;
  hooks.to_near = [this, &connection](std::span<const std::byte> bytes) {
    return hand_to_source(connection, bytes);
  };
  hooks.to_far = [this, &connection, target = far->get()](std::span<const std::byte> bytes) {
    return hand_to_target(connection, *target, bytes);
  };
  connection.pair = std::make_unique<StreamPair>(std::move(near), std::move(*far), std::move(hooks),
                                                 options_.deadline);
}

Result<void> ControlForwarder::hand_to_target(Connection& connection, ByteStream& target,
                                              std::span<const std::byte> bytes) {
  const bool finishes = connection.watch.saw_from_source(bytes);
  if (options_.may_finish) {
    if (connection.watch.lost()) return fail(Errc::kCorrupt, "this is not libvirt's protocol");
    if (finishes && !options_.may_finish()) {
      return fail(Errc::kUnavailable, "the target must not finish this migration");
    }
  }
  return target.write_all(bytes, options_.deadline);
}

Result<void> ControlForwarder::hand_to_source(Connection& connection,
                                              std::span<const std::byte> bytes) {
  const std::optional<std::size_t> finished = connection.watch.saw_from_target(bytes);
  if (connection.watch.lost()) lost_ = true;
  if (!finished) return connection.source->write_all(bytes, options_.deadline);

  FinishSeen none = FinishSeen::kNo;
  const bool first = finish_.compare_exchange_strong(none, FinishSeen::kMaybe);
  TRY(connection.source->write_all(bytes.first(*finished), options_.deadline));
  const Deadline taken_by = std::chrono::steady_clock::now() + options_.take_max;
  const auto taken = connection.source->wait_until_read(taken_by);
  if (taken && first) {
    finish_ = FinishSeen::kHanded;
    on_finish_();
  }
  if (!taken) {
    log_warning("libvirt did not take the answer to Finish path={} error=\"{}\"", options_.path,
                taken.error().message());
  }
  return connection.source->write_all(bytes.subspan(*finished), options_.deadline);
}

}  // namespace samepage::migrator
