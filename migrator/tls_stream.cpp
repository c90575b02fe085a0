#include "migrator/tls_stream.h"

#include <cerrno>
#include <utility>

#include <openssl/err.h>
#include <openssl/ssl.h>
#include <poll.h>
#include <sys/socket.h>

#include "core/check.h"
#include "core/handle.h"
#include "core/mutex.h"
#include "migrator/socket_bio.h"
#include "migrator/socket_calls.h"

namespace samepage::migrator {
namespace {

// AES-GCM keys wear out after 2^24.5 records of 16 KiB; renewing one far earlier costs nothing.
constexpr std::uint64_t kBytesPerKeyMax = std::uint64_t{64} << 20U;
constexpr std::chrono::seconds kFarewellMax{5};
constexpr std::size_t kReadBufferBytes = std::size_t{256} * 1024;
constexpr std::size_t kIdentityMax = 64;
constexpr const char* kCipher = "TLS_AES_128_GCM_SHA256";
constexpr std::array<unsigned char, 2> kCipherNumber{0x13, 0x01};

using Context = Handle<SSL_CTX, SSL_CTX_free>;
using Ssl = Handle<SSL, SSL_free>;
using SslSession = Handle<SSL_SESSION, SSL_SESSION_free>;

/// Everything in OpenSSL's queue of this thread, in words.
std::string openssl_reasons() {
  std::string reasons;
  for (unsigned long code = ERR_get_error(); code != 0; code = ERR_get_error()) {
    const char* text = ERR_reason_error_string(code);
    reasons += (reasons.empty() ? "" : ", ") + std::string(text != nullptr ? text : "unknown");
  }
  return reasons.empty() ? "no reason given" : reasons;
}

bool ended_early() {
  return ERR_GET_REASON(ERR_peek_last_error()) == SSL_R_UNEXPECTED_EOF_WHILE_READING;
}

}  // namespace

/// The socket, OpenSSL's objects above it and what their callbacks need, in order of construction.
struct TlsStream::Connection {
  Connection(Fd fd, WireCounter& counter)
      : socket(std::move(fd)), bio_target{.fd = socket.get(), .counter = &counter} {}

  const Fd socket;
  SocketBioTarget bio_target;
  std::string session;
  PreSharedKey key{};
  FindKey find_key;
  Context context;
  Mutex mutex;  // OpenSSL allows one call at a time; waiting happens outside.
  Ssl ssl GUARDED_BY(mutex);
  std::uint64_t written_with_key GUARDED_BY(mutex) = 0;

  /// One SSL call's result: done, or what to wait for, or how it failed.
  enum class Step : std::uint8_t { kDone, kEnd, kWantRead, kWantWrite, kBroken };
  Step classify(int result) REQUIRES(mutex) {
    if (result > 0) return Step::kDone;
    switch (SSL_get_error(ssl.get(), result)) {
      case SSL_ERROR_ZERO_RETURN:
        return Step::kEnd;
      case SSL_ERROR_WANT_READ:
        return Step::kWantRead;
      case SSL_ERROR_WANT_WRITE:
        return Step::kWantWrite;
      default:
        return Step::kBroken;
    }
  }

  Result<void> wait(Step step, Deadline deadline) const {
    return wait_for(socket.get(), step == Step::kWantRead ? POLLIN : POLLOUT, deadline);
  }

  Result<void> prepare(bool listener);
  Result<void> handshake(bool listener, Deadline deadline);
  Error handshake_error() REQUIRES(mutex);
};

namespace {

SSL_SESSION* session_with(SSL* ssl, const PreSharedKey& key) {
  SslSession session(SSL_SESSION_new());
  const SSL_CIPHER* cipher = SSL_CIPHER_find(ssl, kCipherNumber.data());
  if (!session || cipher == nullptr) return nullptr;
  const auto* bytes = reinterpret_cast<const unsigned char*>(key.data());
  const bool made = SSL_SESSION_set1_master_key(session.get(), bytes, key.size()) == 1 &&
                    SSL_SESSION_set_cipher(session.get(), cipher) == 1 &&
                    SSL_SESSION_set_protocol_version(session.get(), TLS1_3_VERSION) == 1;
  return made ? session.release() : nullptr;
}

template <class Connection>
Connection& connection_of(SSL* ssl) {
  return *static_cast<Connection*>(SSL_get_ex_data(ssl, 0));
}

/// The client names the session and shows that it holds the key. OpenSSL owns what it is given.
template <class Connection>
int use_session(SSL* ssl, const EVP_MD* /*digest*/, const unsigned char** identity,
                std::size_t* identity_size, SSL_SESSION** session) {
  const Connection& connection = connection_of<Connection>(ssl);
  *session = session_with(ssl, connection.key);
  *identity = reinterpret_cast<const unsigned char*>(connection.session.data());
  *identity_size = connection.session.size();
  return *session != nullptr ? 1 : 0;
}

/// Without a session OpenSSL looks for a certificate, finds none, and refuses the client.
template <class Connection>
int find_session(SSL* ssl, const unsigned char* identity, std::size_t identity_size,
                 SSL_SESSION** session) {
  Connection& connection = connection_of<Connection>(ssl);
  *session = nullptr;
  if (identity_size > kIdentityMax) return 1;
  const std::string name(reinterpret_cast<const char*>(identity), identity_size);
  const std::optional<PreSharedKey> key = connection.find_key(name);
  if (!key) return 1;
  connection.session = name;
  *session = session_with(ssl, *key);
  return *session != nullptr ? 1 : 0;
}

}  // namespace

Result<void> TlsStream::Connection::prepare(bool listener) {
  const MutexLock lock(mutex);
  context.reset(SSL_CTX_new(listener ? TLS_server_method() : TLS_client_method()));
  if (!context) return fail(Errc::kIo, "make a TLS context: " + openssl_reasons());
  SSL_CTX* ctx = context.get();
  const bool set = SSL_CTX_set_min_proto_version(ctx, TLS1_3_VERSION) == 1 &&
                   SSL_CTX_set_max_proto_version(ctx, TLS1_3_VERSION) == 1 &&
                   SSL_CTX_set_ciphersuites(ctx, kCipher) == 1 &&
                   SSL_CTX_set_num_tickets(ctx, 0) == 1;
  if (!set) return fail(Errc::kIo, "set up TLS: " + openssl_reasons());
  SSL_CTX_set_options(ctx, SSL_OP_NO_TICKET);
  SSL_CTX_set_session_cache_mode(ctx, SSL_SESS_CACHE_OFF);
  SSL_CTX_set_mode(ctx, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
  SSL_CTX_set_read_ahead(ctx, 1);
  SSL_CTX_set_default_read_buffer_len(ctx, kReadBufferBytes);
  if (listener) {
    SSL_CTX_set_psk_find_session_callback(ctx, find_session<Connection>);
  } else {
    SSL_CTX_set_psk_use_session_callback(ctx, use_session<Connection>);
  }

  ssl.reset(SSL_new(ctx));
  Bio bio = new_socket_bio(bio_target);
  if (!ssl || !bio) return fail(Errc::kIo, "make a TLS connection: " + openssl_reasons());
  SSL_set_ex_data(ssl.get(), 0, this);
  BIO* owned_by_ssl = bio.release();
  SSL_set_bio(ssl.get(), owned_by_ssl, owned_by_ssl);
  return {};
}

Error TlsStream::Connection::handshake_error() {
  if (ERR_peek_last_error() == 0 || ended_early()) {
    ERR_clear_error();
    return {Errc::kUnavailable, "the connection broke"};
  }
  return {Errc::kInvalid,
          "the peer does not hold this session's secret (" + openssl_reasons() + ")"};
}

Result<void> TlsStream::Connection::handshake(bool listener, Deadline deadline) {
  for (;;) {
    Step step = Step::kBroken;
    {
      const MutexLock lock(mutex);
      ERR_clear_error();
      step = classify(listener ? SSL_accept(ssl.get()) : SSL_connect(ssl.get()));
      if (step == Step::kBroken || step == Step::kEnd) return tl::unexpected(handshake_error());
      // A handshake that went through without the key (by certificate) proves nothing to us.
      if (step == Step::kDone && SSL_session_reused(ssl.get()) == 1) return {};
      if (step == Step::kDone) {
        return fail(Errc::kInvalid, "the peer does not hold this session's secret");
      }
    }
    TRY(wait(step, deadline));
  }
}

Result<std::unique_ptr<TlsStream>> TlsStream::connect(Fd socket, const std::string& session,
                                                      const PreSharedKey& key, WireCounter& counter,
                                                      Deadline deadline) {
  CHECK(!session.empty());
  CHECK(session.size() <= kIdentityMax);
  auto connection = std::make_unique<Connection>(std::move(socket), counter);
  connection->session = session;
  connection->key = key;
  TRY(connection->prepare(false));
  if (auto done = connection->handshake(false, deadline); !done) {
    return tl::unexpected(std::move(done).error().within("TLS handshake"));
  }
  return std::unique_ptr<TlsStream>(new TlsStream(std::move(connection)));
}

Result<std::unique_ptr<TlsStream>> TlsStream::accept(Fd socket, const FindKey& find_key,
                                                     WireCounter& counter, Deadline deadline) {
  auto connection = std::make_unique<Connection>(std::move(socket), counter);
  connection->find_key = find_key;
  TRY(connection->prepare(true));
  if (auto done = connection->handshake(true, deadline); !done) {
    return tl::unexpected(std::move(done).error().within("TLS handshake"));
  }
  return std::unique_ptr<TlsStream>(new TlsStream(std::move(connection)));
}

TlsStream::TlsStream(std::unique_ptr<Connection> connection) : connection_(std::move(connection)) {}
TlsStream::~TlsStream() = default;

const std::string& TlsStream::session() const {
  return connection_->session;
}

Result<std::size_t> TlsStream::read_some(std::span<std::byte> buffer, Deadline deadline) {
  CHECK(!buffer.empty());
  for (;;) {
    if (shut_down_) return fail(Errc::kUnavailable, "read: the connection was shut down");
    auto step = Connection::Step::kBroken;
    {
      const MutexLock lock(connection_->mutex);
      ERR_clear_error();
      std::size_t got = 0;
      step = connection_->classify(
          SSL_read_ex(connection_->ssl.get(), buffer.data(), buffer.size(), &got));
      if (step == Connection::Step::kDone) return got;
      if (step == Connection::Step::kEnd) return std::size_t{0};
      if (step == Connection::Step::kBroken) {
        return fail(Errc::kUnavailable, "read: the connection broke: " + openssl_reasons());
      }
    }
    TRY(connection_->wait(step, deadline));
  }
}

Result<void> TlsStream::write_all(std::span<const std::byte> bytes, Deadline deadline) {
  while (!bytes.empty()) {
    if (shut_down_) return fail(Errc::kUnavailable, "write: the connection was shut down");
    auto step = Connection::Step::kBroken;
    std::size_t written = 0;
    {
      const MutexLock lock(connection_->mutex);
      ERR_clear_error();
      if (connection_->written_with_key >= kBytesPerKeyMax) {
        connection_->written_with_key = 0;
        SSL_key_update(connection_->ssl.get(), SSL_KEY_UPDATE_NOT_REQUESTED);
      }
      step = connection_->classify(
          SSL_write_ex(connection_->ssl.get(), bytes.data(), bytes.size(), &written));
      connection_->written_with_key += written;
      if (step == Connection::Step::kBroken || step == Connection::Step::kEnd) {
        return fail(Errc::kUnavailable, "write: the connection broke: " + openssl_reasons());
      }
    }
    bytes = bytes.subspan(written);
    if (step != Connection::Step::kDone) TRY(connection_->wait(step, deadline));
  }
  return {};
}

Result<void> TlsStream::finish_writing() {
  const Deadline deadline = std::chrono::steady_clock::now() + kFarewellMax;
  for (;;) {
    if (shut_down_) return fail(Errc::kUnavailable, "finish: the connection was shut down");
    auto step = Connection::Step::kBroken;
    {
      const MutexLock lock(connection_->mutex);
      ERR_clear_error();
      const int result = SSL_shutdown(connection_->ssl.get());
      if (result >= 0) return {};  // 0: ours is sent; the peer's need not have come.
      step = connection_->classify(result);
      if (step == Connection::Step::kBroken || step == Connection::Step::kEnd) {
        return fail(Errc::kUnavailable, "finish: the connection broke: " + openssl_reasons());
      }
    }
    TRY(connection_->wait(step, deadline));
  }
}

void TlsStream::shut_down() {
  shut_down_ = true;
  // Wakes a poll(2) in either direction; failing means that the peer was faster.
  static_cast<void>(::shutdown(connection_->socket.get(), SHUT_RDWR));
}

}  // namespace samepage::migrator
