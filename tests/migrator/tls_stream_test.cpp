// The promise under test: a TLS stream that exists talks to a holder of the session's key, carries
// bytes both ways at the same time, notices a forged end, and counts what really crossed its
// socket. Each misbehaviour is one test; the wire is a socketpair.

#include "migrator/tls_stream.h"

#include <array>
#include <future>
#include <thread>
#include <vector>

#include <gtest/gtest.h>
#include <sys/socket.h>

#include "migrator/socket_stream.h"
#include "migrator/stream_pair.h"

namespace samepage::migrator {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
using StreamResult = Result<std::unique_ptr<TlsStream>>;

constexpr seconds kLong{30};
constexpr milliseconds kShort{50};

Deadline in(milliseconds time) {
  return std::chrono::steady_clock::now() + time;
}

PreSharedKey key_of(int seed) {
  PreSharedKey key;
  key.fill(static_cast<std::byte>(seed));
  return key;
}

struct Wire {
  Fd client;
  Fd server;
};

Wire make_wire() {
  std::array<int, 2> fds{};
  EXPECT_EQ(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds.data()), 0);
  Wire wire{Fd(fds[0]), Fd(fds[1])};
  for (const int fd : fds) {
    // As the product's sockets are.
    const SocketStream non_blocking{Fd(::dup(fd))};
  }
  return wire;
}

class TlsStreamTest : public ::testing::Test {
 protected:
  std::future<StreamResult> accept(Fd socket, milliseconds max = kLong) {
    return std::async(std::launch::async, [this, max, fd = std::move(socket)]() mutable {
      const FindKey find = [](std::string_view session) -> std::optional<PreSharedKey> {
        if (session == "one") return key_of(1);
        if (session == "two") return key_of(2);
        return std::nullopt;
      };
      return TlsStream::accept(std::move(fd), find, server_wire_, in(max));
    });
  }

  StreamResult connect(Fd socket, const std::string& session, int seed) {
    return TlsStream::connect(std::move(socket), session, key_of(seed), client_wire_, in(kLong));
  }

  void open() {
    Wire wire = make_wire();
    auto accepted = accept(std::move(wire.server));
    client_ = connect(std::move(wire.client), "one", 1).value();
    server_ = accepted.get().value();
  }

  WireCounter client_wire_;
  WireCounter server_wire_;
  std::unique_ptr<TlsStream> client_;
  std::unique_ptr<TlsStream> server_;
};

void send_pattern(ByteStream& stream, std::size_t bytes) {
  std::vector<std::byte> chunk(100'000);
  for (std::size_t sent = 0; sent < bytes;) {
    const std::size_t size = std::min(chunk.size(), bytes - sent);
    for (std::size_t i = 0; i < size; ++i) chunk[i] = static_cast<std::byte>((sent + i) % 251);
    ASSERT_TRUE(stream.write_all(std::span(chunk).first(size), in(kLong)));
    sent += size;
  }
}

void expect_pattern(ByteStream& stream, std::size_t bytes) {
  std::vector<std::byte> chunk(70'000);
  std::size_t wrong = 0;
  for (std::size_t seen = 0; seen < bytes;) {
    const std::size_t want = std::min(chunk.size(), bytes - seen);
    const auto got = stream.read_some(std::span(chunk).first(want), in(kLong));
    ASSERT_TRUE(got) << got.error().message();
    ASSERT_GT(*got, 0U);
    for (std::size_t i = 0; i < *got; ++i) {
      if (chunk[i] != static_cast<std::byte>((seen + i) % 251)) ++wrong;
    }
    seen += *got;
  }
  EXPECT_EQ(wrong, 0U);
}

TEST_F(TlsStreamTest, SessionsOfOneListenerAreToldApartByTheirName) {
  for (const auto& [session, seed] : {std::pair{"one", 1}, std::pair{"two", 2}}) {
    Wire wire = make_wire();
    auto accepted = accept(std::move(wire.server));
    const auto client = connect(std::move(wire.client), session, seed);
    const auto server = accepted.get();

    ASSERT_TRUE(client) << client.error().message();
    ASSERT_TRUE(server) << server.error().message();
    EXPECT_EQ((*server)->session(), session);
  }
}

TEST_F(TlsStreamTest, AWrongKeyIsRefusedByBothSides) {
  Wire wire = make_wire();
  auto accepted = accept(std::move(wire.server));
  const auto client = connect(std::move(wire.client), "one", 2);
  const auto server = accepted.get();

  ASSERT_FALSE(client);
  EXPECT_EQ(client.error().code(), Errc::kInvalid);
  EXPECT_NE(client.error().message().find("does not hold this session's secret"),
            std::string::npos);
  ASSERT_FALSE(server);
  EXPECT_EQ(server.error().code(), Errc::kInvalid);
}

TEST_F(TlsStreamTest, AnUnknownSessionIsRefusedByBothSides) {
  Wire wire = make_wire();
  auto accepted = accept(std::move(wire.server));
  const auto client = connect(std::move(wire.client), "three", 1);
  const auto server = accepted.get();

  ASSERT_FALSE(client);
  EXPECT_EQ(client.error().code(), Errc::kInvalid);
  ASSERT_FALSE(server);
  EXPECT_EQ(server.error().code(), Errc::kInvalid);
}

TEST_F(TlsStreamTest, AHandshakeCutAtAnyPointOfTheHelloIsUnavailableOrRefused) {
  Wire recording = make_wire();
  auto client = std::async(std::launch::async, [this, &recording] {
    return connect(std::move(recording.client), "one", 1);
  });
  std::vector<std::byte> hello(4096);
  SocketStream recorder(std::move(recording.server));
  hello.resize(recorder.read_some(hello, in(kLong)).value());
  recorder.shut_down();
  EXPECT_EQ(client.get().error().code(), Errc::kUnavailable);

  for (std::size_t size = 0; size < hello.size(); size += 7) {
    Wire wire = make_wire();
    auto accepted = accept(std::move(wire.server));
    SocketStream sender(std::move(wire.client));
    ASSERT_TRUE(sender.write_all(std::span(hello).first(size), in(kLong)));
    ASSERT_TRUE(sender.finish_writing());
    const auto server = accepted.get();
    ASSERT_FALSE(server) << size;
    EXPECT_EQ(server.error().code(), Errc::kUnavailable) << size;
  }
}

TEST_F(TlsStreamTest, APeerThatSaysNothingRunsIntoTheDeadline) {
  Wire wire = make_wire();
  const auto server = accept(std::move(wire.server), kShort).get();
  ASSERT_FALSE(server);
  EXPECT_EQ(server.error().code(), Errc::kTimedOut);
}

TEST_F(TlsStreamTest, APeerThatSpeaksSomethingElseIsRefused) {
  Wire wire = make_wire();
  auto accepted = accept(std::move(wire.server));
  SocketStream sender(std::move(wire.client));
  const std::string text = "GET / HTTP/1.1\r\nHost: here\r\n\r\n";
  ASSERT_TRUE(sender.write_all(std::as_bytes(std::span(text)), in(kLong)));
  EXPECT_EQ(accepted.get().error().code(), Errc::kInvalid);
}

TEST_F(TlsStreamTest, BytesPassBothWaysAtTheSameTime) {
  constexpr std::size_t kBytes = 20'000'000;
  open();
  std::jthread a([&] { send_pattern(*client_, kBytes); });
  std::jthread b([&] { send_pattern(*server_, kBytes); });
  std::jthread c([&] { expect_pattern(*client_, kBytes); });
  expect_pattern(*server_, kBytes);
}

TEST_F(TlsStreamTest, KeysAreRenewedEvery64MiB) {
  // What crosses the socket tells: a record adds 22 bytes, a renewal is a record of 27.
  constexpr std::size_t kChunk = 100'000;
  constexpr std::size_t kChunks = 2'100;
  constexpr std::size_t kRecordsPerChunk = 7;
  constexpr std::size_t kRenewals = kChunk * kChunks / (std::size_t{64} << 20U);
  open();
  const std::size_t before = client_wire_.sent;

  std::jthread a([&] { send_pattern(*client_, kChunk * kChunks); });
  expect_pattern(*server_, kChunk * kChunks);
  a.join();

  EXPECT_EQ(client_wire_.sent - before,
            kChunks * (kChunk + 22 * kRecordsPerChunk) + kRenewals * 27);
}

TEST_F(TlsStreamTest, AnOrderlyEndReadsAsZeroAndLeavesTheOtherDirectionOpen) {
  open();
  ASSERT_TRUE(client_->finish_writing());
  std::array<std::byte, 16> buffer{};
  EXPECT_EQ(server_->read_some(buffer, in(kLong)).value(), 0U);

  std::jthread a([&] { send_pattern(*server_, 1000); });
  expect_pattern(*client_, 1000);
}

TEST_F(TlsStreamTest, AConnectionThatIsCutIsNoOrderlyEnd) {
  open();
  client_->shut_down();
  std::array<std::byte, 16> buffer{};
  const auto got = server_->read_some(buffer, in(kLong));
  ASSERT_FALSE(got);
  EXPECT_EQ(got.error().code(), Errc::kUnavailable);
}

TEST_F(TlsStreamTest, AReaderRunsIntoItsDeadline) {
  open();
  std::array<std::byte, 16> buffer{};
  EXPECT_EQ(server_->read_some(buffer, in(kShort)).error().code(), Errc::kTimedOut);
}

TEST_F(TlsStreamTest, AWriterToAPeerThatDoesNotReadRunsIntoItsDeadline) {
  open();
  const std::vector<std::byte> much(std::size_t{8} << 20U);
  EXPECT_EQ(client_->write_all(much, in(kShort)).error().code(), Errc::kTimedOut);
}

TEST_F(TlsStreamTest, ShutDownWakesTheReaderAndTheWriter) {
  open();
  const std::vector<std::byte> much(std::size_t{8} << 20U);
  auto writer = std::async(std::launch::async, [&] { return client_->write_all(much, in(kLong)); });
  auto reader = std::async(std::launch::async, [&] {
    std::array<std::byte, 16> buffer{};
    return client_->read_some(buffer, in(kLong));
  });
  client_->shut_down();
  EXPECT_EQ(writer.get().error().code(), Errc::kUnavailable);
  EXPECT_EQ(reader.get().error().code(), Errc::kUnavailable);
}

TEST_F(TlsStreamTest, CountsWhatCrossesTheSocket) {
  // A relay in the middle counts for itself what passes between the two sockets.
  Wire left = make_wire();
  Wire right = make_wire();
  std::atomic<std::size_t> to_server = 0;
  std::atomic<std::size_t> to_client = 0;
  auto near = std::make_unique<SocketStream>(std::move(left.server));
  auto far = std::make_unique<SocketStream>(std::move(right.client));
  StreamPairHooks hooks;
  hooks.to_far = [&to_server, out = far.get()](std::span<const std::byte> bytes) {
    to_server += bytes.size();
    return out->write_all(bytes, in(kLong));
  };
  hooks.to_near = [&to_client, out = near.get()](std::span<const std::byte> bytes) {
    to_client += bytes.size();
    return out->write_all(bytes, in(kLong));
  };
  const StreamPair middle(std::move(near), std::move(far), std::move(hooks), in(kLong));

  auto accepted = accept(std::move(right.server));
  client_ = connect(std::move(left.client), "one", 1).value();
  server_ = accepted.get().value();
  std::jthread a([&] { send_pattern(*client_, 1'000'000); });
  expect_pattern(*server_, 1'000'000);
  send_pattern(*server_, 50'000);
  expect_pattern(*client_, 50'000);

  EXPECT_EQ(client_wire_.sent, to_server);
  EXPECT_EQ(server_wire_.received, to_server);
  EXPECT_EQ(server_wire_.sent, to_client);
  EXPECT_EQ(client_wire_.received, to_client);
  EXPECT_GT(client_wire_.sent, 1'000'000U);
  EXPECT_LT(client_wire_.sent, 1'010'000U);
}

}  // namespace
}  // namespace samepage::migrator
