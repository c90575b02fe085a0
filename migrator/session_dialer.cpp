#include "migrator/session_dialer.h"

#include <utility>

#include "migrator/socket_stream.h"

namespace samepage::migrator {

SessionDialer::SessionDialer(SessionDialerOptions options, WireCounter& counter)
    : options_(std::move(options)), counter_(counter) {}

Result<std::unique_ptr<ByteStream>> SessionDialer::open(Channel channel) const {
  const Deadline deadline = std::chrono::steady_clock::now() + options_.connect_max;
  Fd socket = TRY(connect_tcp(options_.address, options_.port, deadline));
  std::unique_ptr<ByteStream> stream = TRY(
      TlsStream::connect(std::move(socket), options_.session, options_.key, counter_, deadline));
  TRY(send_channel(*stream, channel, deadline));
  return stream;
}

}  // namespace samepage::migrator
