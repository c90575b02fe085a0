#include "migrator/session_server.h"

#include <optional>
#include <utility>

#include <fcntl.h>
#include <sys/socket.h>

#include "core/log.h"

namespace samepage::migrator {

SessionServer::SessionServer(SessionServerOptions options, std::unique_ptr<SocketListener> listener,
                             WireCounter& counter, OnChannel on_channel)
    : options_(std::move(options)),
      counter_(counter),
      on_channel_(std::move(on_channel)),
      port_(listener->port()),
      listener_(std::move(listener)),
      acceptor_([this] { accept_all(); }) {}

SessionServer::~SessionServer() {
  stop();
}

void SessionServer::stop() {
  if (!listener_) return;
  listener_->stop();
  acceptor_.join();
  listener_.reset();
}

void SessionServer::accept_all() {
  for (;;) {
    auto socket = listener_->accept(options_.deadline);
    if (!socket) break;
    handshakes_.remove_if([](const Handshake& handshake) { return handshake.done.load(); });
    if (handshakes_.size() < options_.handshakes_max) begin_handshake(std::move(*socket));
  }
  for (Handshake& handshake : handshakes_) {
    const MutexLock lock(handshake.mutex);
    if (handshake.socket) static_cast<void>(::shutdown(handshake.socket.get(), SHUT_RDWR));
  }
  handshakes_.clear();
}

void SessionServer::begin_handshake(Fd socket) {
  Fd second(::fcntl(socket.get(), F_DUPFD_CLOEXEC, 0));
  if (!second) return;
  Handshake& handshake = handshakes_.emplace_back();
  {
    const MutexLock lock(handshake.mutex);
    handshake.socket = std::move(second);
  }
  handshake.thread = std::jthread([this, &handshake, fd = std::move(socket)]() mutable {
    auto opened = open_channel(std::move(fd));
    {
      const MutexLock lock(handshake.mutex);
      handshake.socket.reset();
    }
    if (opened) {
      on_channel_(opened->channel, std::move(opened->stream));
    } else {
      log_warning("refused a connection session={} error=\"{}\"", options_.session,
                  opened.error().message());
    }
    handshake.done = true;
  });
}

Result<SessionServer::Opened> SessionServer::open_channel(Fd socket) {
  const Deadline deadline = std::chrono::steady_clock::now() + options_.handshake_max;
  const FindKey find_key = [this](std::string_view session) -> std::optional<PreSharedKey> {
    if (session != options_.session) return std::nullopt;
    return options_.key;
  };
  auto stream = TRY(TlsStream::accept(std::move(socket), find_key, counter_, deadline));
  const Channel channel = TRY(receive_channel(*stream, deadline));
  return Opened{.channel = channel, .stream = std::move(stream)};
}

}  // namespace samepage::migrator
