#include "tools/samepage/http_client.h"

#include <algorithm>
#include <array>
#include <cerrno>
#include <limits>
#include <system_error>
#include <utility>

#include <curl/curl.h>
#include <nlohmann/json.hpp>

#include "core/handle.h"

namespace samepage::http {
namespace {

using Curl = Handle<CURL, curl_easy_cleanup>;
using Headers = Handle<curl_slist, curl_slist_free_all>;

constexpr std::size_t kErrorBytesMax = 64 * std::size_t{1024};

Errc errc_of(std::string_view code) {
  if (code == "not_found") return Errc::kNotFound;
  if (code == "unavailable") return Errc::kUnavailable;
  if (code == "timed_out") return Errc::kTimedOut;
  if (code == "corrupt") return Errc::kCorrupt;
  if (code == "io") return Errc::kIo;
  return Errc::kInvalid;
}

/// The Error in the API's envelope.
Error refusal(long status, const std::string& body) {
  const auto document = nlohmann::json::parse(body, nullptr, false);
  if (document.is_object() && document.contains("error") && document["error"].is_object()) {
    const auto& error = document["error"];
    const auto code = error.find("code");
    const auto message = error.find("message");
    if (code != error.end() && code->is_string() && message != error.end() &&
        message->is_string()) {
      return {errc_of(code->get<std::string>()), message->get<std::string>()};
    }
  }
  return {Errc::kCorrupt, "status " + std::to_string(status) + " without an explanation"};
}

}  // namespace

/// One request and what came back of it so far.
struct HttpClient::Exchange {
  std::string method;
  std::string path;
  std::string body;
  const std::function<void(std::string_view)>* on_line = nullptr;
  const std::function<bool()>* keep_going = nullptr;
  std::size_t answer_bytes_max = 0;
  std::size_t line_bytes_max = 0;

  CURL* curl = nullptr;
  std::string answer = {};  // All of it; of a stream only the line that has not ended.
  bool too_large = false;
  bool stopped = false;
  std::array<char, CURL_ERROR_SIZE> curl_error = {};

  /// All that does not depend on where the placer is.
  void set_up() {
    // Proxies of the environment are for the web, not for the placer.
    curl_easy_setopt(curl, CURLOPT_PROXY, "");
    curl_easy_setopt(curl, CURLOPT_PROTOCOLS_STR, "http,https");
    curl_easy_setopt(curl, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(curl, CURLOPT_TCP_KEEPALIVE, 1L);
    curl_easy_setopt(curl, CURLOPT_CUSTOMREQUEST, method.c_str());
    if (!body.empty()) {
      curl_easy_setopt(curl, CURLOPT_POSTFIELDS, body.c_str());
      curl_easy_setopt(curl, CURLOPT_POSTFIELDSIZE_LARGE, static_cast<curl_off_t>(body.size()));
    }
    curl_easy_setopt(curl, CURLOPT_ERRORBUFFER, curl_error.data());
    curl_easy_setopt(curl, CURLOPT_WRITEFUNCTION, &Exchange::on_data);
    curl_easy_setopt(curl, CURLOPT_WRITEDATA, this);
    curl_easy_setopt(curl, CURLOPT_XFERINFOFUNCTION, &Exchange::on_progress);
    curl_easy_setopt(curl, CURLOPT_XFERINFODATA, this);
    curl_easy_setopt(curl, CURLOPT_NOPROGRESS, 0L);
  }

  long status() const {
    long status = 0;
    curl_easy_getinfo(curl, CURLINFO_RESPONSE_CODE, &status);
    return status;
  }

  /// Why there was no connection, in the system's words where it has some.
  std::string refusal_reason() const {
    long error = 0;
    curl_easy_getinfo(curl, CURLINFO_OS_ERRNO, &error);
    if (error == EACCES) return "permission denied, try as root or as a member of its group";
    if (error == 0) return curl_error.data();
    return std::generic_category().message(static_cast<int>(error));
  }

  bool is_streaming() const { return on_line != nullptr && status() < 300; }

  bool take(std::string_view data) {
    const bool streaming = is_streaming();
    const std::size_t size_max = streaming ? line_bytes_max : answer_bytes_max;
    answer.append(data);
    if (streaming) hand_out_lines();
    too_large = answer.size() > size_max;
    return !too_large;
  }

  void hand_out_lines() {
    std::size_t begin = 0;
    for (std::size_t end = answer.find('\n'); end != std::string::npos;
         end = answer.find('\n', begin)) {
      if (end > begin) (*on_line)(std::string_view(answer).substr(begin, end - begin));
      begin = end + 1;
    }
    answer.erase(0, begin);
  }

  static std::size_t on_data(char* data, std::size_t size, std::size_t count, void* self) {
    return static_cast<Exchange*>(self)->take({data, size * count}) ? size * count : 0;
  }

  static int on_progress(void* self, curl_off_t, curl_off_t, curl_off_t, curl_off_t) {
    auto& exchange = *static_cast<Exchange*>(self);
    exchange.stopped = exchange.keep_going != nullptr && !(*exchange.keep_going)();
    return exchange.stopped ? 1 : 0;
  }
};

Result<std::string> HttpClient::get(const std::string& path, Deadline deadline) const {
  return send("GET", path, "", deadline);
}

Result<std::string> HttpClient::send(const std::string& method, const std::string& path,
                                     const std::string& body, Deadline deadline) const {
  Exchange exchange{
      .method = method, .path = path, .body = body, .answer_bytes_max = options_.answer_bytes_max};
  TRY(perform(exchange, deadline));
  return std::move(exchange.answer);
}

Result<HttpClient::StreamEnd> HttpClient::stream(
    const std::string& path, const std::function<void(std::string_view)>& on_line,
    const std::function<bool()>& keep_going, Deadline deadline) const {
  Exchange exchange{.method = "GET",
                    .path = path,
                    .body = "",
                    .on_line = &on_line,
                    .keep_going = &keep_going,
                    .answer_bytes_max = kErrorBytesMax,
                    .line_bytes_max = options_.line_bytes_max};
  TRY(perform(exchange, deadline));
  return exchange.stopped ? StreamEnd::kStopped : StreamEnd::kComplete;
}

Result<void> HttpClient::perform(Exchange& exchange, Deadline deadline) const {
  using std::chrono::milliseconds;
  const auto left = std::chrono::duration_cast<milliseconds>(deadline - Deadline::clock::now());
  if (left.count() <= 0) return fail(Errc::kTimedOut, "no time is left to ask " + placer());
  const Curl curl(curl_easy_init());
  if (!curl) return fail(Errc::kIo, "libcurl does not start");
  exchange.curl = curl.get();
  exchange.set_up();

  const std::string base = options_.url.empty() ? "http://placer" : options_.url;
  const std::string url = base + "/api/v1" + exchange.path;
  curl_easy_setopt(curl.get(), CURLOPT_URL, url.c_str());
  if (options_.url.empty()) {
    curl_easy_setopt(curl.get(), CURLOPT_UNIX_SOCKET_PATH, options_.socket_path.c_str());
  }
  curl_easy_setopt(curl.get(), CURLOPT_CONNECTTIMEOUT_MS,
                   static_cast<long>(milliseconds(options_.connect_time_max).count()));
  const milliseconds curl_time_max{std::numeric_limits<int>::max()};
  curl_easy_setopt(curl.get(), CURLOPT_TIMEOUT_MS,
                   left < curl_time_max ? static_cast<long>(left.count()) : 0L);
  Headers headers(curl_slist_append(nullptr, "Content-Type: application/json"));
  if (!options_.token.empty()) {
    const std::string bearer = "Authorization: Bearer " + options_.token;
    curl_slist_append(headers.get(), bearer.c_str());
  }
  curl_easy_setopt(curl.get(), CURLOPT_HTTPHEADER, headers.get());

  const CURLcode code = curl_easy_perform(curl.get());
  if (exchange.stopped) return {};
  // A server that refuses early may close before it has read the whole body.
  const bool answered_early = code == CURLE_SEND_ERROR && exchange.status() >= 400;
  if (code != CURLE_OK && !answered_early) {
    return tl::unexpected(transport_error(exchange, code));
  }
  const long status = exchange.status();
  if (status >= 200 && status < 300) return {};
  return tl::unexpected(refusal(status, exchange.answer));
}

Error HttpClient::transport_error(const Exchange& exchange, int curl_code) const {
  const char* detail = exchange.curl_error[0] != '\0'
                           ? exchange.curl_error.data()
                           : curl_easy_strerror(static_cast<CURLcode>(curl_code));
  if (exchange.too_large) {
    return {Errc::kCorrupt, "the answer of " + placer() + " is too large"};
  }
  switch (curl_code) {
    case CURLE_COULDNT_CONNECT:
    case CURLE_COULDNT_RESOLVE_HOST:
      return {Errc::kUnavailable, "cannot reach " + placer() + ": " + exchange.refusal_reason() +
                                      ". `systemctl start samepage-placer` starts it on its host; "
                                      "--socket or --url says where it is"};
    case CURLE_OPERATION_TIMEDOUT:
      return {Errc::kTimedOut, placer() + " did not answer in time; what was asked may happen yet"};
    case CURLE_GOT_NOTHING:
    case CURLE_PARTIAL_FILE:
    case CURLE_RECV_ERROR:
    case CURLE_SEND_ERROR:
      return {Errc::kUnavailable, placer() + " closed the connection (" + detail + ")"};
    default:
      return {Errc::kCorrupt, "no placer answers at " + placer() + ": " + detail};
  }
}

std::string HttpClient::placer() const {
  return "the placer at " + (options_.url.empty() ? options_.socket_path : options_.url);
}

std::string url_encoded(std::string_view text) {
  constexpr std::string_view kHex = "0123456789ABCDEF";
  std::string encoded;
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    const bool plain = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
                       c == '-' || c == '.' || c == '_' || c == '~';
    if (plain) {
      encoded += c;
    } else {
      encoded += '%';
      encoded += kHex[byte >> 4U];
      encoded += kHex[byte & 15U];
    }
  }
  return encoded;
}

}  // namespace samepage::http
