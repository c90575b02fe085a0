#include "imagestore/store_control.h"

#include "imagestore/store_socket.h"

namespace samepage::imagestore {

Result<StoreAnswer> SocketControl::call(const bus::StoreRequest& request, Deadline deadline) {
  if (!socket_) socket_ = TRY(connect_store(path_));
  const std::string bytes = request.SerializeAsString();
  const auto sent = send_frame(socket_.get(), std::as_bytes(std::span(bytes)), -1, deadline);
  auto frame = sent ? receive_frame(socket_.get(), deadline)
                    : Result<StoreFrame>(tl::unexpected(sent.error()));
  if (!frame) {
    // An answer that comes later must not be taken for that of another request.
    socket_.reset();
    return tl::unexpected(std::move(frame).error());
  }
  StoreAnswer answer;
  answer.reply = TRY(parse_store_reply(frame->bytes));
  answer.descriptor = std::move(frame->descriptor);
  if (answer.reply.has_failure()) return tl::unexpected(from_failure(answer.reply.failure()));
  return answer;
}

}  // namespace samepage::imagestore
