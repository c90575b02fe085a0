// The promise under test: handlers see complete, bounded, authenticated requests; every answer,
// streams included, ends when it should. Clients are the CLI's own or raw sockets.

#include "tools/samepage-placer/http_server.h"

#include <array>
#include <atomic>
#include <condition_variable>
#include <cstring>
#include <deque>
#include <fstream>
#include <future>
#include <mutex>
#include <stdexcept>
#include <thread>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#include "core/fd.h"
#include "tests/tools/temp_dir.h"
#include "tools/samepage/http_client.h"

namespace samepage::http {
namespace {

using samepage::testing::TempDir;
using std::chrono::seconds;
using ::testing::HasSubstr;
using ::testing::StartsWith;

Deadline soon() {
  return Deadline::clock::now() + seconds(20);
}

Route echo(const std::string& method, const std::string& pattern) {
  return {method, "/api/v1" + pattern, [](const Request& request) -> Result<Response> {
            std::string body;
            for (const auto& [key, value] : request.params) body += key + "=" + value + ";";
            for (const auto& [key, value] : request.query) body += "?" + key + "=" + value + ";";
            return Response{.body = body + request.body};
          }};
}

Route failing(const std::string& pattern, Errc code) {
  return {"GET", "/api/v1" + pattern,
          [code](const Request&) -> Result<Response> { return fail(code, "because"); }};
}

/// Lines that a test pushes, as a stream's source; says when its stream is gone.
class Feed {
 public:
  void push(std::string line) {
    const std::lock_guard lock(mutex_);
    lines_.push_back(std::move(line));
    changed_.notify_all();
  }

  void end() {
    const std::lock_guard lock(mutex_);
    ended_ = true;
    changed_.notify_all();
  }

  StreamSource source() {
    auto alive = std::shared_ptr<void>(nullptr, [this](void*) { gone_.set_value(); });
    return [this, alive](Deadline deadline) -> std::optional<std::string> {
      std::unique_lock lock(mutex_);
      changed_.wait_until(lock, deadline, [this] { return ended_ || !lines_.empty(); });
      if (lines_.empty()) return ended_ ? std::nullopt : std::optional(std::string());
      std::string line = std::move(lines_.front());
      lines_.pop_front();
      return line;
    };
  }

  bool stream_ends() {
    return gone_.get_future().wait_for(seconds(20)) == std::future_status::ready;
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<std::string> lines_;
  bool ended_ = false;
  std::promise<void> gone_;
};

Route streaming(Feed& feed) {
  return {"GET", "/api/v1/stream",
          [&feed](const Request&) -> Result<Response> { return ndjson(feed.source()); }};
}

class HttpServerTest : public ::testing::Test {
 protected:
  void serve(std::vector<Route> routes, Options options = {}) {
    options.socket_path = path_;
    auto server = HttpServer::create(options, std::move(routes));
    ASSERT_TRUE(server) << server.error().message();
    server_ = *std::move(server);
  }

  /// Sends `text` as it is and returns what comes back until the server closes or `until` came.
  std::string raw(const std::string& text, const std::string& until = "") const {
    const Fd socket(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    std::memcpy(&address.sun_path[0], path_.data(), path_.size());
    if (::connect(socket.get(), reinterpret_cast<sockaddr*>(&address), sizeof(address)) != 0) {
      return "no connection";
    }
    std::size_t sent = 0;
    while (sent < text.size()) {
      const ssize_t size =
          ::send(socket.get(), text.data() + sent, text.size() - sent, MSG_NOSIGNAL);
      if (size <= 0) break;
      sent += static_cast<std::size_t>(size);
    }
    std::string answer;
    std::array<char, 4096> buffer{};
    pollfd ready{.fd = socket.get(), .events = POLLIN, .revents = 0};
    while (::poll(&ready, 1, 20'000) > 0) {
      const ssize_t size = ::recv(socket.get(), buffer.data(), buffer.size(), 0);
      if (size <= 0) break;
      answer.append(buffer.data(), static_cast<std::size_t>(size));
      if (!until.empty() && answer.find(until) != std::string::npos) break;
    }
    return answer;
  }

  TempDir dir_;
  std::string path_ = dir_.file("api.sock");
  HttpClient client_{{.socket_path = path_}};
  Feed feed_;
  std::unique_ptr<HttpServer> server_;  // Last: it uses the feed.
};

TEST_F(HttpServerTest, HandsPathParametersAndDecodedQueryToTheHandler) {
  serve({echo("GET", "/hosts/NAME/vms/VM")});

  const auto answer = client_.get("/hosts/a%20b/vms/web3?x=1%2B1&flag", soon());

  ASSERT_TRUE(answer) << answer.error().message();
  EXPECT_EQ(*answer, "NAME=a b;VM=web3;?flag=;?x=1+1;");
}

TEST_F(HttpServerTest, RefusesUnknownPathsAndMethods) {
  serve({echo("GET", "/hosts"), echo("GET", "/hosts/NAME")});

  EXPECT_EQ(client_.get("/nothing", soon()).error().code(), Errc::kNotFound);
  EXPECT_EQ(client_.get("/hosts/a/b", soon()).error().code(), Errc::kNotFound);
  EXPECT_EQ(client_.get("/hosts/", soon()).error().code(), Errc::kNotFound);
  EXPECT_THAT(raw("PUT /api/v1/hosts HTTP/1.0\r\n\r\n"), StartsWith("HTTP/1.1 405"));
}

TEST_F(HttpServerTest, AnswersEachErrcWithItsStatusAndCode) {
  const std::vector<std::tuple<Errc, int, std::string>> kinds = {
      {Errc::kNotFound, 404, "not_found"}, {Errc::kUnavailable, 503, "unavailable"},
      {Errc::kTimedOut, 504, "timed_out"}, {Errc::kCorrupt, 500, "corrupt"},
      {Errc::kInvalid, 400, "invalid"},    {Errc::kIo, 500, "io"}};
  std::vector<Route> routes;
  for (const auto& [code, status, name] : kinds) routes.push_back(failing("/" + name, code));
  serve(routes);

  for (const auto& [code, status, name] : kinds) {
    const Response response = error_response(Error(code, "because"));
    EXPECT_EQ(response.status, status);
    EXPECT_EQ(response.body, R"({"error":{"code":")" + name + R"(","message":"because"}})");
    const auto answer = client_.get("/" + name, soon());
    ASSERT_FALSE(answer);
    EXPECT_EQ(answer.error().code(), code);
    EXPECT_EQ(answer.error().message(), "because");
  }
}

TEST_F(HttpServerTest, ConflictHasItsOwnCode) {
  const Response response = conflict("another plan runs");
  EXPECT_EQ(response.status, 409);
  EXPECT_THAT(response.body, HasSubstr(R"("code":"conflict")"));
}

TEST_F(HttpServerTest, AnErrorMessageOfAnyBytesIsStillJson) {
  EXPECT_THAT(error_response(Error(Errc::kInvalid, "\xFF\n")).body, HasSubstr("\\n"));
}

TEST_F(HttpServerTest, AThrowingHandlerFailsItsRequestOnly) {
  serve({echo("GET", "/fine"), {"GET", "/api/v1/throws", [](const Request&) -> Result<Response> {
                                  throw std::runtime_error("oh");
                                }}});

  EXPECT_EQ(client_.get("/throws", soon()).error().code(), Errc::kIo);
  EXPECT_TRUE(client_.get("/fine", soon()));
}

TEST_F(HttpServerTest, TakesABodyOfTheMaximumAndNoLargerOne) {
  serve({echo("POST", "/plans")}, {.body_bytes_max = 100'000});
  const std::string largest(100'000, 'x');

  EXPECT_EQ(client_.send("POST", "/plans", largest, soon()).value_or(""), largest);
  const auto refused = client_.send("POST", "/plans", largest + "x", soon());
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code(), Errc::kInvalid) << refused.error().message();
  EXPECT_THAT(refused.error().message(), HasSubstr("too large"));
}

TEST_F(HttpServerTest, BoundsABodyThatAnnouncesNoLength) {
  serve({echo("POST", "/plans")}, {.body_bytes_max = 10});
  const std::string head =
      "POST /api/v1/plans HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
      "Transfer-Encoding: chunked\r\n\r\n";

  EXPECT_THAT(raw(head + "b\r\n12345678901\r\n0\r\n\r\n"), StartsWith("HTTP/1.1 413"));
  EXPECT_THAT(raw(head + "a\r\n1234567890\r\n0\r\n\r\n"), StartsWith("HTTP/1.1 200"));
}

TEST_F(HttpServerTest, StreamsEachLineWhenItIsSaid) {
  serve({streaming(feed_)});
  feed_.push("1\n");
  std::vector<std::string> lines;

  // The second line exists only after the client has seen the first.
  const auto end = client_.stream(
      "/stream",
      [&](std::string_view line) {
        lines.emplace_back(line);
        if (line == "1") feed_.push("2\n3\n");
        if (line == "3") feed_.end();
      },
      [] { return true; }, soon());

  ASSERT_TRUE(end) << end.error().message();
  EXPECT_EQ(*end, HttpClient::StreamEnd::kComplete);
  EXPECT_EQ(lines, (std::vector<std::string>{"1", "2", "3"}));
  EXPECT_TRUE(feed_.stream_ends());
}

TEST_F(HttpServerTest, AClientThatLeavesEndsItsStream) {
  serve({streaming(feed_)});
  feed_.push("1\n");
  bool seen = false;

  const auto end = client_.stream(
      "/stream", [&](std::string_view) { seen = true; }, [&] { return !seen; }, soon());

  ASSERT_TRUE(end) << end.error().message();
  EXPECT_EQ(*end, HttpClient::StreamEnd::kStopped);
  EXPECT_TRUE(feed_.stream_ends());
}

TEST_F(HttpServerTest, StopCutsStreamsOffSoThatTheyDoNotLookComplete) {
  serve({streaming(feed_)});
  feed_.push("1\n");
  std::promise<void> started;
  std::thread stopper([&] {
    started.get_future().wait();
    server_->stop();
  });

  const auto end = client_.stream(
      "/stream", [&](std::string_view) { started.set_value(); }, [] { return true; }, soon());
  stopper.join();

  ASSERT_FALSE(end);
  EXPECT_EQ(end.error().code(), Errc::kUnavailable) << end.error().message();
  EXPECT_TRUE(feed_.stream_ends());
  EXPECT_FALSE(client_.get("/stream", soon()));
}

TEST_F(HttpServerTest, StopTellsARunningHandlerAndWaitsForIt) {
  std::promise<void> entered;
  std::atomic<bool> answered = false;
  serve({{"GET", "/api/v1/slow", [&](const Request& request) -> Result<Response> {
            entered.set_value();
            while (!request.stop.stop_requested()) std::this_thread::yield();
            answered = true;
            return fail(Errc::kUnavailable, "going down");
          }}});
  auto answer = std::async(std::launch::async, [&] { return client_.get("/slow", soon()); });
  entered.get_future().wait();

  server_->stop();

  EXPECT_TRUE(answered);
  EXPECT_EQ(answer.get().error().code(), Errc::kUnavailable);
}

TEST_F(HttpServerTest, SilentStreamsHoldEmptyLines) {
  serve({streaming(feed_)}, {.heartbeat_max = seconds(0)});

  EXPECT_THAT(raw("GET /api/v1/stream HTTP/1.1\r\nHost: x\r\n\r\n", "1\r\n\n\r\n"),
              HasSubstr("1\r\n\n\r\n"));
}

TEST_F(HttpServerTest, RefusesMoreStreamsThanAllowed) {
  serve({streaming(feed_)}, {.streams_max = 0});

  const auto end = client_.stream(
      "/stream", [](std::string_view) {}, [] { return true; }, soon());

  ASSERT_FALSE(end);
  EXPECT_EQ(end.error().code(), Errc::kUnavailable);
}

TEST_F(HttpServerTest, HangsUpOnMoreClientsThanAllowedUntilOneLeaves) {
  serve({echo("GET", "/hosts"), streaming(feed_)}, {.connections_max = 1});
  feed_.push("1\n");

  const auto end = client_.stream(
      "/stream",
      [&](std::string_view) {
        const auto answer = HttpClient({.socket_path = path_}).get("/hosts", soon());
        feed_.end();
        ASSERT_FALSE(answer);
        EXPECT_EQ(answer.error().code(), Errc::kUnavailable);
      },
      [] { return true; }, soon());

  EXPECT_TRUE(end);
  const Deadline deadline = soon();
  while (!client_.get("/hosts", soon())) ASSERT_LT(Deadline::clock::now(), deadline);
}

TEST_F(HttpServerTest, TheSocketIsForOwnerAndGroupAndGoesWithTheServer) {
  serve({});
  struct stat status {};
  ASSERT_EQ(::stat(path_.c_str(), &status), 0);
  EXPECT_EQ(status.st_mode & 07777U, 0660U);
  EXPECT_EQ(server_->address(), path_);

  server_.reset();

  EXPECT_NE(::stat(path_.c_str(), &status), 0);
}

TEST_F(HttpServerTest, ReplacesASocketThatNobodyListensOn) {
  {
    const Fd stale(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    std::memcpy(&address.sun_path[0], path_.data(), path_.size());
    ASSERT_EQ(::bind(stale.get(), reinterpret_cast<sockaddr*>(&address), sizeof(address)), 0);
  }

  serve({echo("GET", "/hosts")});

  EXPECT_TRUE(client_.get("/hosts", soon()));
}

TEST_F(HttpServerTest, LeavesAnotherServersSocketAlone) {
  serve({echo("GET", "/hosts")});

  const auto second = HttpServer::create({.socket_path = path_}, {});

  ASSERT_FALSE(second);
  EXPECT_EQ(second.error().code(), Errc::kUnavailable);
  EXPECT_TRUE(client_.get("/hosts", soon()));
}

TEST_F(HttpServerTest, LeavesAFileThatIsNoSocketAlone) {
  dir_.write("api.sock", "precious");

  const auto server = HttpServer::create({.socket_path = path_}, {});

  ASSERT_FALSE(server);
  EXPECT_EQ(server.error().code(), Errc::kInvalid);
  std::string text;
  std::ifstream(path_) >> text;
  EXPECT_EQ(text, "precious");
}

TEST_F(HttpServerTest, SaysWhatIsWrongWithItsOptions) {
  const auto code = [](const Options& options) {
    const auto server = HttpServer::create(options, {});
    return server ? std::optional<Errc>() : server.error().code();
  };
  EXPECT_EQ(code({}), Errc::kInvalid);
  EXPECT_EQ(code({.socket_path = std::string(200, 'x')}), Errc::kInvalid);
  EXPECT_EQ(code({.socket_path = dir_.file("no/such/folder")}), Errc::kIo);
  EXPECT_EQ(code({.tcp_address = "127.0.0.1:0"}), Errc::kInvalid);
  EXPECT_EQ(code({.tcp_address = "127.0.0.1:0", .token = "short"}), Errc::kInvalid);
  EXPECT_EQ(code({.tcp_address = "localhost", .token = "0123456789abcdef"}), Errc::kInvalid);
  EXPECT_EQ(code({.tcp_address = "192.0.2.1:0", .token = "0123456789abcdef"}), Errc::kIo);
}

TEST_F(HttpServerTest, OverTcpOnlyTheTokenOpens) {
  const std::string token = "0123456789abcdef";
  const auto server =
      HttpServer::create({.tcp_address = "127.0.0.1:0", .token = token}, {echo("GET", "/hosts")});
  ASSERT_TRUE(server) << server.error().message();
  const std::string url = "http://" + (*server)->address();

  for (const std::string& wrong : {std::string(), token + "0", token.substr(1), "x" + token}) {
    const auto answer = HttpClient({.url = url, .token = wrong}).get("/hosts", soon());
    ASSERT_FALSE(answer);
    EXPECT_EQ(answer.error().code(), Errc::kInvalid);
    EXPECT_THAT(answer.error().message(), HasSubstr("token"));
  }
  EXPECT_TRUE(HttpClient({.url = url, .token = token}).get("/hosts", soon()));
}

// The client's own promises, where the server plays the other side.

TEST_F(HttpServerTest, ClientSaysWhereItSoughtThePlacer) {
  const auto answer = client_.get("/hosts", soon());

  ASSERT_FALSE(answer);
  EXPECT_EQ(answer.error().code(), Errc::kUnavailable);
  EXPECT_THAT(answer.error().message(), HasSubstr(path_));
  EXPECT_THAT(answer.error().message(), HasSubstr("systemctl start samepage-placer"));
}

TEST_F(HttpServerTest, ClientGivesUpAtItsDeadline) {
  serve({{"GET", "/api/v1/slow", [](const Request& request) -> Result<Response> {
            while (!request.stop.stop_requested()) std::this_thread::yield();
            return fail(Errc::kUnavailable, "going down");
          }}});

  const auto answer = client_.get("/slow", Deadline::clock::now() + std::chrono::milliseconds(100));

  ASSERT_FALSE(answer);
  EXPECT_EQ(answer.error().code(), Errc::kTimedOut);
  EXPECT_EQ(client_.get("/slow", Deadline::clock::now()).error().code(), Errc::kTimedOut);
}

TEST_F(HttpServerTest, ClientBoundsAnswersAndLines) {
  serve({echo("POST", "/echo"), streaming(feed_)});
  const HttpClient client({.socket_path = path_, .answer_bytes_max = 1000, .line_bytes_max = 1000});
  feed_.push(std::string(5000, 'x'));

  const auto answer = client.send("POST", "/echo", std::string(5000, 'x'), soon());
  const auto end = client.stream(
      "/stream", [](std::string_view) {}, [] { return true; }, soon());

  ASSERT_FALSE(answer);
  EXPECT_EQ(answer.error().code(), Errc::kCorrupt);
  ASSERT_FALSE(end);
  EXPECT_EQ(end.error().code(), Errc::kCorrupt);
}

TEST_F(HttpServerTest, ClientDoesNotBelieveAnswersOfOtherServers) {
  serve({{"GET", "/api/v1/html", [](const Request&) -> Result<Response> {
            return Response{.status = 502, .body = "<html>"};
          }}});

  const auto answer = client_.get("/html", soon());

  ASSERT_FALSE(answer);
  EXPECT_EQ(answer.error().code(), Errc::kCorrupt);
}

TEST_F(HttpServerTest, UrlEncodingSurvivesTheWay) {
  serve({echo("GET", "/vms/NAME")});
  const std::string name = "a b?c=d&e#f%ü";

  EXPECT_EQ(client_.get("/vms/" + url_encoded(name), soon()).value_or(""), "NAME=" + name + ";");
}

}  // namespace
}  // namespace samepage::http
