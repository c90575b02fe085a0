#include "migrator/socket_bio.h"

#include <cerrno>
#include <cstddef>

#include <sys/socket.h>

namespace samepage::migrator {
namespace {

bool try_again(int error) {
  return error == EAGAIN || error == EWOULDBLOCK || error == EINTR;
}

int socket_write(BIO* bio, const char* data, int size) {
  const auto* target = static_cast<const SocketBioTarget*>(BIO_get_data(bio));
  BIO_clear_retry_flags(bio);
  const ssize_t sent = ::send(target->fd, data, static_cast<std::size_t>(size), MSG_NOSIGNAL);
  if (sent < 0 && try_again(errno)) BIO_set_retry_write(bio);
  if (sent > 0) target->counter->sent += static_cast<std::uint64_t>(sent);
  return static_cast<int>(sent);
}

int socket_read(BIO* bio, char* data, int size) {
  const auto* target = static_cast<const SocketBioTarget*>(BIO_get_data(bio));
  BIO_clear_retry_flags(bio);
  const ssize_t got = ::recv(target->fd, data, static_cast<std::size_t>(size), 0);
  if (got < 0 && try_again(errno)) BIO_set_retry_read(bio);
  if (got == 0) BIO_set_flags(bio, BIO_FLAGS_IN_EOF);
  if (got > 0) target->counter->received += static_cast<std::uint64_t>(got);
  return static_cast<int>(got);
}

long socket_control(BIO* bio, int command, long /*number*/, void* /*pointer*/) {
  switch (command) {
    case BIO_CTRL_FLUSH:
      return 1;
    case BIO_CTRL_EOF:
      return BIO_test_flags(bio, BIO_FLAGS_IN_EOF) != 0 ? 1 : 0;
    default:
      return 0;
  }
}

BIO_METHOD* make_method() {
  BIO_METHOD* method = BIO_meth_new(BIO_get_new_index() | BIO_TYPE_SOURCE_SINK, "counted socket");
  if (method == nullptr) return nullptr;
  BIO_meth_set_write(method, socket_write);
  BIO_meth_set_read(method, socket_read);
  BIO_meth_set_ctrl(method, socket_control);
  return method;
}

}  // namespace

Bio new_socket_bio(SocketBioTarget& target) {
  static const Handle<BIO_METHOD, BIO_meth_free> method(make_method());
  if (!method) return {};
  Bio bio(BIO_new(method.get()));
  if (!bio) return {};
  BIO_set_data(bio.get(), &target);
  BIO_set_init(bio.get(), 1);
  return bio;
}

}  // namespace samepage::migrator
