#include "migrator/session_server.h"

#include <optional>
#include <utility>

#include "core/log.h"

namespace samepage::migrator {

SessionServer::SessionServer(SessionServerOptions options, std::unique_ptr<SocketListener> listener,
                             WireCounter& counter, OnChannel on_channel)
    : options_(std::move(options)),
      counter_(counter),
      on_channel_(std::move(on_channel)),
      listener_(std::move(listener)),
      acceptor_([this] { accept_all(); }) {}

SessionServer::~SessionServer() {
  stop();
}

void SessionServer::stop() {
  listener_->stop();
  if (acceptor_.joinable()) acceptor_.join();
}

void SessionServer::accept_all() {
  for (;;) {
    auto socket = listener_->accept(options_.deadline);
    if (!socket) break;
    handshakes_.remove_if([](const Handshake& handshake) { return handshake.done.load(); });
    if (handshakes_.size() >= options_.handshakes_max) continue;
    Handshake& handshake = handshakes_.emplace_back();
    handshake.thread = std::jthread([this, &handshake, fd = std::move(*socket)]() mutable {
      open_channel(std::move(fd));
      handshake.done = true;
    });
  }
  handshakes_.clear();
}

void SessionServer::open_channel(Fd socket) {
  const Deadline deadline = std::chrono::steady_clock::now() + options_.handshake_max;
  const FindKey find_key = [this](std::string_view session) -> std::optional<PreSharedKey> {
    if (session != options_.session) return std::nullopt;
    return options_.key;
  };
  auto stream = TlsStream::accept(std::move(socket), find_key, counter_, deadline);
  if (!stream) {
    log_warning("refused a connection session={} error=\"{}\"", options_.session,
                stream.error().message());
    return;
  }
  const auto channel = receive_channel(**stream, deadline);
  if (!channel) {
    log_warning("refused a connection session={} error=\"{}\"", options_.session,
                channel.error().message());
    return;
  }
  on_channel_(*channel, std::move(*stream));
}

}  // namespace samepage::migrator
