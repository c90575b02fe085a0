// The promise under test: a connection that is refused, or that nobody takes, is closed at once; a
// peer that waits on it would wait for ever.

#include "migrator/session_server.h"

#include <array>

#include <gtest/gtest.h>

#include "migrator/session_dialer.h"
#include "migrator/socket_stream.h"

namespace samepage::migrator {
namespace {

constexpr const char* kSession = "0123456789abcdef";

class SessionServerTest : public testing::Test {
 protected:
  const Deadline soon_ = std::chrono::steady_clock::now() + std::chrono::seconds(20);
  const PreSharedKey key_{std::byte{1}};
  WireCounter counter_;
  SessionServer server_{
      {.session = kSession, .key = key_, .deadline = soon_ + std::chrono::hours(1)},
      SocketListener::listen_tcp("127.0.0.1", {}).value(),
      counter_,
      [](Channel /*channel*/, const std::unique_ptr<ByteStream>& /*stream*/) {}};
};

TEST_F(SessionServerTest, AChannelThatNobodyTakesIsClosed) {
  const SessionDialer dialer(
      {.session = kSession, .key = key_, .address = "127.0.0.1", .port = server_.port()}, counter_);
  const auto stream = dialer.open(Channel::kControl).value();
  std::array<std::byte, 1> byte{};
  const auto got = stream->read_some(byte, soon_);
  EXPECT_EQ(got.error().code(), Errc::kUnavailable);
}

TEST_F(SessionServerTest, AConnectionThatNeverNamesAChannelIsClosed) {
  SocketStream stranger(connect_tcp("127.0.0.1", server_.port(), soon_).value());
  ASSERT_TRUE(stranger.write_all(std::array<std::byte, 64>{}, soon_));
  std::array<std::byte, 1024> bytes{};
  for (;;) {
    const auto got = stranger.read_some(bytes, soon_);
    if (got && *got > 0) continue;  // TLS says why.
    EXPECT_TRUE(got || got.error().code() == Errc::kUnavailable);
    return;
  }
}

}  // namespace
}  // namespace samepage::migrator
