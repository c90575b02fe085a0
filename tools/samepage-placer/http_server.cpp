#include "tools/samepage-placer/http_server.h"

#include <algorithm>
#include <atomic>
#include <charconv>
#include <cstring>
#include <exception>
#include <utility>

#include <microhttpd.h>
#include <nlohmann/json.hpp>
#include <poll.h>

#include "core/check.h"
#include "core/handle.h"
#include "core/log.h"
#include "tools/samepage-placer/http_listener.h"

namespace samepage::http {
namespace {

constexpr std::chrono::milliseconds kPullTime{250};
constexpr std::size_t kStreamBlock = 32'768;
constexpr std::size_t kTokenLengthMin = 16;

using MhdDaemon = Handle<MHD_Daemon, MHD_stop_daemon>;
using MhdResponse = Handle<MHD_Response, MHD_destroy_response>;

struct Kind {
  int status;
  const char* code;
};

Kind kind_of(Errc code) {
  switch (code) {
    case Errc::kNotFound:
      return {404, "not_found"};
    case Errc::kUnavailable:
      return {503, "unavailable"};
    case Errc::kTimedOut:
      return {504, "timed_out"};
    case Errc::kCorrupt:
      return {500, "corrupt"};
    case Errc::kInvalid:
      return {400, "invalid"};
    case Errc::kIo:
      return {500, "io"};
  }
  return {500, "io"};
}

Response envelope(const Kind& kind, std::string_view message) {
  const nlohmann::json body = {{"error", {{"code", kind.code}, {"message", message}}}};
  Response response;
  response.status = kind.status;
  // A message may quote what a client or a guest sent, in any encoding.
  response.body = body.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
  return response;
}

/// Takes the time of any wrong guess, however much of it is right.
bool same_secret(std::string_view given, std::string_view secret) {
  unsigned difference = given.size() == secret.size() ? 0 : 1;
  for (std::size_t i = 0; i < given.size(); ++i) {
    const char expected = secret[i % secret.size()];
    difference |= static_cast<unsigned char>(given[i] ^ expected);
  }
  return difference == 0;
}

std::string_view next_segment(std::string_view& path) {
  const std::size_t slash = std::min(path.find('/'), path.size());
  const std::string_view segment = path.substr(0, slash);
  path.remove_prefix(std::min(slash + 1, path.size()));
  return segment;
}

bool is_param(std::string_view segment) {
  return !segment.empty() &&
         std::all_of(segment.begin(), segment.end(), [](char c) { return c >= 'A' && c <= 'Z'; });
}

/// The pattern's parameters, when `path` fits it.
std::optional<Fields> match(std::string_view pattern, std::string_view path) {
  if (std::count(pattern.begin(), pattern.end(), '/') != std::count(path.begin(), path.end(), '/'))
    return std::nullopt;
  Fields params;
  while (!pattern.empty() || !path.empty()) {
    const std::string_view expected = next_segment(pattern);
    const std::string_view given = next_segment(path);
    if (is_param(expected) && !given.empty()) {
      params.emplace(expected, given);
    } else if (expected != given) {
      return std::nullopt;
    }
  }
  return params;
}

MHD_Result keep_query_argument(void* fields, MHD_ValueKind /*kind*/, const char* key,
                               const char* value) {
  static_cast<Fields*>(fields)->insert_or_assign(key, value == nullptr ? "" : value);
  return MHD_YES;
}

std::size_t announced_length(MHD_Connection* connection) {
  const char* text =
      MHD_lookup_connection_value(connection, MHD_HEADER_KIND, MHD_HTTP_HEADER_CONTENT_LENGTH);
  std::size_t length = 0;
  if (text != nullptr) std::from_chars(text, text + std::strlen(text), length);
  return length;
}

bool client_is_gone(int socket) {
  pollfd state{.fd = socket, .events = POLLRDHUP, .revents = 0};
  return ::poll(&state, 1, 0) > 0 && (state.revents & (POLLRDHUP | POLLHUP | POLLERR)) != 0;
}

/// A streamed answer in flight, counted in `streams`; lives as long as its MHD_Response.
class Stream {
 public:
  struct Surroundings {
    std::atomic<unsigned>& streams;
    std::stop_token stop;
    int socket;
    std::chrono::seconds heartbeat;
  };

  Stream(StreamSource source, Surroundings surroundings)
      : source_(std::move(source)), around_(std::move(surroundings)) {
    ++around_.streams;
  }
  Stream(const Stream&) = delete;
  Stream& operator=(const Stream&) = delete;
  ~Stream() { --around_.streams; }

  ssize_t read(char* buffer, std::size_t size_max) {
    try {
      while (sent_ == text_.size()) {
        if (around_.stop.stop_requested() || client_is_gone(around_.socket))
          return MHD_CONTENT_READER_END_WITH_ERROR;
        if (!pull()) return MHD_CONTENT_READER_END_OF_STREAM;
      }
    } catch (const std::exception& exception) {
      log_error("stream failed error=\"{}\"", exception.what());
      return MHD_CONTENT_READER_END_WITH_ERROR;
    }
    const std::size_t size = std::min(size_max, text_.size() - sent_);
    std::memcpy(buffer, text_.data() + sent_, size);
    sent_ += size;
    return static_cast<ssize_t>(size);
  }

 private:
  bool pull() {
    std::optional<std::string> text = source_(std::chrono::steady_clock::now() + kPullTime);
    if (!text) return false;
    const Deadline now = std::chrono::steady_clock::now();
    const bool long_silence = now - last_line_ >= around_.heartbeat;
    if (!text->empty() || long_silence) last_line_ = now;
    text_ = text->empty() && long_silence ? "\n" : *std::move(text);
    sent_ = 0;
    return true;
  }

  StreamSource source_;
  Surroundings around_;
  std::string text_;
  std::size_t sent_ = 0;
  Deadline last_line_ = std::chrono::steady_clock::now();
};

/// What is known of a request until it is complete.
struct Exchange {
  std::string body;
  std::size_t received = 0;
};

Result<void> check(const Options& options) {
  if (options.socket_path.empty() == options.tcp_address.empty()) {
    return fail(Errc::kInvalid, "give the API either a socket path or a TCP address");
  }
  if (!options.tcp_address.empty() && options.token.size() < kTokenLengthMin) {
    return fail(Errc::kInvalid, "the API listens on TCP only with a token of at least " +
                                    std::to_string(kTokenLengthMin) + " characters");
  }
  return {};
}

}  // namespace

Response ndjson(StreamSource source) {
  Response response;
  response.content_type = "application/x-ndjson";
  response.stream = std::move(source);
  return response;
}

Response conflict(std::string_view message) {
  return envelope({409, "conflict"}, message);
}

Response error_response(const Error& error) {
  return envelope(kind_of(error.code()), error.message());
}

class HttpServer::Daemon {
 public:
  Daemon(Options options, std::vector<Route> routes)
      : options_(std::move(options)), routes_(std::move(routes)) {}

  Result<void> start();

  void stop() {
    stop_.request_stop();
    mhd_.reset();
  }

  const std::string& address() const { return address_; }

 private:
  // NOLINTNEXTLINE(readability-function-size): the parameters are libmicrohttpd's.
  static MHD_Result on_request(void* self, MHD_Connection* connection, const char* path,
                               const char* method, const char* version, const char* data,
                               std::size_t* data_size, void** slot);
  static void on_completed(void* self, MHD_Connection* connection, void** slot,
                           MHD_RequestTerminationCode how);

  std::optional<Response> refusal(MHD_Connection* connection) const;
  Response handle(const Request& request) const;
  Response call(const Route& route, const Request& request) const;
  MHD_Result answer(MHD_Connection* connection, Response response);
  MhdResponse make_stream(MHD_Connection* connection, StreamSource source);

  const Options options_;
  const std::vector<Route> routes_;
  std::string address_;
  std::stop_source stop_;
  std::atomic<unsigned> streams_ = 0;
  std::optional<UnixListener> unix_listener_;
  MhdDaemon mhd_;  // Last: its threads use all of the above.
};

Result<void> HttpServer::Daemon::start() {
  TRY(check(options_));
  Fd socket;
  if (options_.tcp_address.empty()) {
    unix_listener_.emplace(TRY(UnixListener::create(options_.socket_path)));
    socket = unix_listener_->take_socket();
    address_ = options_.socket_path;
  } else {
    TcpListener listener = TRY(listen_tcp(options_.tcp_address));
    socket = std::move(listener.socket);
    address_ = listener.address;
  }
  const auto idle_s = static_cast<unsigned>(options_.request_time_max.count() + 10);
  mhd_.reset(MHD_start_daemon(
      MHD_USE_POLL_INTERNAL_THREAD | MHD_USE_THREAD_PER_CONNECTION | MHD_USE_ITC, 0, nullptr,
      nullptr, &Daemon::on_request, this, MHD_OPTION_LISTEN_SOCKET, socket.get(),
      MHD_OPTION_CONNECTION_LIMIT, options_.connections_max, MHD_OPTION_CONNECTION_TIMEOUT, idle_s,
      MHD_OPTION_NOTIFY_COMPLETED, &Daemon::on_completed, this, MHD_OPTION_END));
  if (!mhd_) return fail(Errc::kIo, "start serving " + address_ + ": libmicrohttpd refused");
  socket.release();  // MHD_stop_daemon closes it.
  return {};
}

// MHD calls this once when the headers are in, then for each piece of the body, and once more
// with an empty piece when the request is complete.
// NOLINTNEXTLINE(readability-function-size): the parameters are libmicrohttpd's.
MHD_Result HttpServer::Daemon::on_request(void* self, MHD_Connection* connection, const char* path,
                                          const char* method, const char* /*version*/,
                                          const char* data, std::size_t* data_size, void** slot) {
  auto& daemon = *static_cast<Daemon*>(self);
  if (*slot == nullptr) {
    *slot = std::make_unique<Exchange>().release();
    std::optional<Response> refused = daemon.refusal(connection);
    return refused ? daemon.answer(connection, *std::move(refused)) : MHD_YES;
  }
  auto& exchange = *static_cast<Exchange*>(*slot);
  const std::size_t body_max = daemon.options_.body_bytes_max;
  if (*data_size != 0) {
    exchange.received += *data_size;
    if (exchange.received <= body_max) exchange.body.append(data, *data_size);
    *data_size = 0;
    // A sender that announced no length is heard out for a while, so that it reads the refusal.
    return exchange.received <= 8 * body_max ? MHD_YES : MHD_NO;
  }
  if (exchange.received > body_max) {
    return daemon.answer(connection, envelope({413, "invalid"}, "the body is too large"));
  }
  Request request{.method = method,
                  .path = path,
                  .params = {},
                  .query = {},
                  .body = std::move(exchange.body),
                  .deadline = std::chrono::steady_clock::now() + daemon.options_.request_time_max,
                  .stop = daemon.stop_.get_token()};
  MHD_get_connection_values(connection, MHD_GET_ARGUMENT_KIND, &keep_query_argument,
                            &request.query);
  return daemon.answer(connection, daemon.handle(request));
}

void HttpServer::Daemon::on_completed(void* /*self*/, MHD_Connection* /*connection*/, void** slot,
                                      MHD_RequestTerminationCode /*how*/) {
  const std::unique_ptr<Exchange> exchange(static_cast<Exchange*>(*slot));
  *slot = nullptr;
}

std::optional<Response> HttpServer::Daemon::refusal(MHD_Connection* connection) const {
  if (!options_.tcp_address.empty()) {
    const char* header =
        MHD_lookup_connection_value(connection, MHD_HEADER_KIND, MHD_HTTP_HEADER_AUTHORIZATION);
    if (header == nullptr || !same_secret(header, "Bearer " + options_.token)) {
      return envelope({401, "unauthorized"}, "present the API's token as a bearer token");
    }
  }
  if (announced_length(connection) > options_.body_bytes_max) {
    return envelope({413, "invalid"}, "the body is too large");
  }
  return std::nullopt;
}

Response HttpServer::Daemon::handle(const Request& request) const {
  bool path_is_known = false;
  for (const Route& route : routes_) {
    std::optional<Fields> params = match(route.pattern, request.path);
    if (!params) continue;
    path_is_known = true;
    if (route.method != request.method) continue;
    Request routed = request;
    routed.params = *std::move(params);
    return call(route, routed);
  }
  const std::string what = request.method + " " + request.path;
  if (path_is_known) return envelope({405, "invalid"}, "this resource has no " + what);
  return envelope({404, "not_found"}, "the API has no " + what);
}

Response HttpServer::Daemon::call(const Route& route, const Request& request) const {
  Response response;
  try {
    Result<Response> result = route.handler(request);
    response = result ? *std::move(result) : error_response(result.error());
  } catch (const std::exception& exception) {
    response = envelope({500, "io"}, std::string("internal error: ") + exception.what());
  }
  if (response.status >= 500) {
    log_warning("request failed method={} path={} status={} answer={}", request.method,
                request.path, response.status, response.body);
  }
  return response;
}

MHD_Result HttpServer::Daemon::answer(MHD_Connection* connection, Response response) {
  MhdResponse mhd_response;
  if (response.stream) {
    mhd_response = make_stream(connection, std::move(response.stream));
    if (!mhd_response) {
      response = error_response(Error(Errc::kUnavailable, "too many streams are open"));
    }
  }
  if (!mhd_response) {
    mhd_response.reset(MHD_create_response_from_buffer(response.body.size(), response.body.data(),
                                                       MHD_RESPMEM_MUST_COPY));
  }
  if (!mhd_response) return MHD_NO;
  MHD_add_response_header(mhd_response.get(), MHD_HTTP_HEADER_CONTENT_TYPE,
                          response.content_type.c_str());
  MHD_add_response_header(mhd_response.get(), MHD_HTTP_HEADER_CACHE_CONTROL, "no-store");
  if (response.status == MHD_HTTP_UNAUTHORIZED) {
    MHD_add_response_header(mhd_response.get(), MHD_HTTP_HEADER_WWW_AUTHENTICATE, "Bearer");
  }
  return MHD_queue_response(connection, static_cast<unsigned>(response.status), mhd_response.get());
}

/// Null when there are too many streams already.
MhdResponse HttpServer::Daemon::make_stream(MHD_Connection* connection, StreamSource source) {
  const MHD_ConnectionInfo* info =
      MHD_get_connection_info(connection, MHD_CONNECTION_INFO_CONNECTION_FD);
  CHECK(info != nullptr);
  auto stream = std::make_unique<Stream>(std::move(source),
                                         Stream::Surroundings{.streams = streams_,
                                                              .stop = stop_.get_token(),
                                                              .socket = info->connect_fd,
                                                              .heartbeat = options_.heartbeat_max});
  if (streams_ > options_.streams_max) return nullptr;
  MhdResponse response(MHD_create_response_from_callback(
      MHD_SIZE_UNKNOWN, kStreamBlock,
      [](void* self, std::uint64_t, char* buffer, std::size_t size_max) {
        return static_cast<Stream*>(self)->read(buffer, size_max);
      },
      stream.get(),
      [](void* self) { const std::unique_ptr<Stream> last(static_cast<Stream*>(self)); }));
  if (response) static_cast<void>(stream.release());
  return response;
}

Result<std::unique_ptr<HttpServer>> HttpServer::create(const Options& options,
                                                       std::vector<Route> routes) {
  auto daemon = std::make_unique<Daemon>(options, std::move(routes));
  TRY(daemon->start());
  return std::unique_ptr<HttpServer>(new HttpServer(std::move(daemon)));
}

HttpServer::HttpServer(std::unique_ptr<Daemon> daemon) : daemon_(std::move(daemon)) {}

HttpServer::~HttpServer() {
  stop();
}

void HttpServer::stop() {
  daemon_->stop();
}

const std::string& HttpServer::address() const {
  return daemon_->address();
}

}  // namespace samepage::http
