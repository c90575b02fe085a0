#pragma once

#include <openssl/bio.h>

#include "core/handle.h"
#include "migrator/wire_counter.h"

namespace samepage::migrator {

using Bio = Handle<BIO, BIO_free_all>;

/// What a socket BIO works on; borrowed by the BIO, so it lives longer and does not move.
struct SocketBioTarget {
  int fd = -1;
  WireCounter* counter = nullptr;
};

/// OpenSSL's way to a non-blocking socket. Unlike OpenSSL's own it counts what crosses the socket,
/// and writing to a broken connection raises no SIGPIPE. Empty when memory is short.
Bio new_socket_bio(SocketBioTarget& target);

}  // namespace samepage::migrator
