// The promise under test: sockets as ByteStreams keep their deadlines, tell an end from a break,
// and know when the peer's process has really read what was written.

#include "migrator/socket_stream.h"

#include <array>
#include <filesystem>
#include <future>
#include <vector>

#include <gtest/gtest.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "migrator/socket_calls.h"
#include "migrator/socket_listener.h"

namespace samepage::migrator {
namespace {

using std::chrono::milliseconds;

constexpr milliseconds kLong{30'000};
constexpr milliseconds kShort{30};

Deadline in(milliseconds time) {
  return std::chrono::steady_clock::now() + time;
}

class SocketStreamTest : public ::testing::Test {
 protected:
  SocketStreamTest() {
    std::array<int, 2> fds{};
    EXPECT_EQ(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds.data()), 0);
    near_ = std::make_unique<SocketStream>(Fd(fds[0]));
    far_ = std::make_unique<SocketStream>(Fd(fds[1]));
    folder_ = std::filesystem::temp_directory_path() / "socket_test.XXXXXX";
    EXPECT_NE(::mkdtemp(folder_.data()), nullptr);
  }
  ~SocketStreamTest() override { std::filesystem::remove_all(folder_); }

  std::string path() const { return folder_ + "/socket"; }

  std::unique_ptr<SocketStream> near_;
  std::unique_ptr<SocketStream> far_;
  std::string folder_;
  std::array<std::byte, 100> buffer_{};
};

TEST_F(SocketStreamTest, BytesPassAndAnEndReadsAsZero) {
  ASSERT_TRUE(near_->write_all(std::span(buffer_).first(10), in(kLong)));
  ASSERT_TRUE(near_->finish_writing());
  EXPECT_EQ(far_->read_some(buffer_, in(kLong)).value(), 10U);
  EXPECT_EQ(far_->read_some(buffer_, in(kLong)).value(), 0U);
}

TEST_F(SocketStreamTest, ReadingAndWritingRunIntoTheirDeadlines) {
  EXPECT_EQ(near_->read_some(buffer_, in(kShort)).error().code(), Errc::kTimedOut);
  const std::vector<std::byte> much(4'000'000);
  EXPECT_EQ(near_->write_all(much, in(kShort)).error().code(), Errc::kTimedOut);
}

TEST_F(SocketStreamTest, WritingToAClosedPeerIsUnavailableAndRaisesNoSignal) {
  far_.reset();
  EXPECT_EQ(near_->write_all(buffer_, in(kLong)).error().code(), Errc::kUnavailable);
}

TEST_F(SocketStreamTest, ShutDownWakesAReader) {
  auto reader =
      std::async(std::launch::async, [&] { return near_->read_some(buffer_, in(kLong)); });
  near_->shut_down();
  EXPECT_EQ(reader.get().error().code(), Errc::kUnavailable);
}

TEST_F(SocketStreamTest, WaitUntilReadReturnsOnlyWhenThePeerHasRead) {
  ASSERT_TRUE(near_->write_all(std::span(buffer_).first(10), in(kLong)));
  EXPECT_EQ(near_->wait_until_read(in(kShort)).error().code(), Errc::kTimedOut);
  ASSERT_EQ(far_->read_some(std::span(buffer_).first(9), in(kLong)).value(), 9U);
  EXPECT_EQ(near_->wait_until_read(in(kShort)).error().code(), Errc::kTimedOut);
  ASSERT_EQ(far_->read_some(buffer_, in(kLong)).value(), 1U);
  EXPECT_TRUE(near_->wait_until_read(in(kLong)));
}

TEST_F(SocketStreamTest, WaitUntilReadIsUnavailableWhenThePeerClosedUnread) {
  ASSERT_TRUE(near_->write_all(std::span(buffer_).first(10), in(kLong)));
  far_.reset();
  EXPECT_EQ(near_->wait_until_read(in(kLong)).error().code(), Errc::kUnavailable);
}

TEST_F(SocketStreamTest, AUnixListenerIsItsOwnersAndItsFileGoesWithIt) {
  {
    const auto listener = SocketListener::listen_unix(path()).value();
    struct stat status {};
    ASSERT_EQ(::stat(path().c_str(), &status), 0);
    EXPECT_EQ(status.st_mode & 0777U, 0600U);
    ASSERT_TRUE(connect_unix(path(), in(kLong)));
    EXPECT_TRUE(listener->accept(in(kLong)));
    EXPECT_EQ(listener->accept(in(kShort)).error().code(), Errc::kTimedOut);
  }
  EXPECT_FALSE(std::filesystem::exists(path()));
  EXPECT_EQ(connect_unix(path(), in(kLong)).error().code(), Errc::kNotFound);
}

TEST_F(SocketStreamTest, AStaleSocketIsReplacedAndAnythingElseIsNot) {
  {
    // Closing a bound socket leaves its file behind.
    const Fd stale(::socket(AF_UNIX, SOCK_STREAM, 0));
    const SocketAddress address = unix_address(path()).value();
    ASSERT_EQ(::bind(stale.get(), address.raw(), address.size), 0);
  }
  EXPECT_TRUE(SocketListener::listen_unix(path()));
  std::filesystem::create_directory(folder_ + "/other");
  EXPECT_EQ(SocketListener::listen_unix(folder_ + "/other").error().code(), Errc::kInvalid);
  EXPECT_EQ(SocketListener::listen_unix(folder_ + "/no/such").error().code(), Errc::kIo);
  EXPECT_EQ(SocketListener::listen_unix(std::string(108, 'x')).error().code(), Errc::kInvalid);
}

TEST_F(SocketStreamTest, ATcpListenerTakesThePortsInTurn) {
  const auto first = SocketListener::listen_tcp("127.0.0.1", {}).value();
  const std::uint16_t port = first->port();
  EXPECT_EQ(SocketListener::listen_tcp("127.0.0.1", {port, port}).error().code(),
            Errc::kUnavailable);
  ASSERT_TRUE(connect_tcp("127.0.0.1", port, in(kLong)));
  EXPECT_TRUE(first->accept(in(kLong)));
  EXPECT_EQ(SocketListener::listen_tcp("localhost", {}).error().code(), Errc::kInvalid);
  EXPECT_EQ(SocketListener::listen_tcp("192.0.2.1", {}).error().code(), Errc::kInvalid);
}

TEST_F(SocketStreamTest, StopEndsAccepting) {
  const auto listener = SocketListener::listen_tcp("127.0.0.1", {}).value();
  auto accepting = std::async(std::launch::async, [&] { return listener->accept(in(kLong)); });
  listener->stop();
  EXPECT_EQ(accepting.get().error().code(), Errc::kUnavailable);
}

TEST_F(SocketStreamTest, StopSendsAwayWhoWaitsAndRefusesWhoComes) {
  const auto listener = SocketListener::listen_unix(path()).value();
  SocketStream waiting(connect_unix(path(), in(kLong)).value());
  listener->stop();
  const auto got = waiting.read_some(buffer_, in(kLong));
  EXPECT_TRUE(!got || *got == 0);
  EXPECT_EQ(connect_unix(path(), in(kLong)).error().code(), Errc::kUnavailable);
}

TEST_F(SocketStreamTest, APortWhereNobodyListensIsUnavailable) {
  const std::uint16_t port = SocketListener::listen_tcp("127.0.0.1", {}).value()->port();
  EXPECT_EQ(connect_tcp("127.0.0.1", port, in(kLong)).error().code(), Errc::kUnavailable);
  EXPECT_EQ(connect_tcp("nowhere", port, in(kLong)).error().code(), Errc::kInvalid);
}

}  // namespace
}  // namespace samepage::migrator
