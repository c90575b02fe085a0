// The promise under test: only enrolled keys get in, a message's sender is who its key says, every
// request ends with an answer or with the reaction that fits, and both ends find each other again.
// Real ZeroMQ over loopback; what a peer of ours would never send comes from a plain DEALER.

#include "core/bus.h"

#include <thread>

#include <gtest/gtest.h>
#include <zmq.hpp>

#include "tests/core/mailbox.h"

namespace samepage {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

Deadline in(milliseconds time) {
  return std::chrono::steady_clock::now() + time;
}
Deadline soon() {
  return in(seconds(20));
}

BusLimits quick_limits() {
  BusLimits limits;
  limits.heartbeat_interval = milliseconds(20);
  limits.silence_max = milliseconds(2000);
  limits.reconnect_interval = milliseconds(20);
  return limits;
}

bus::Envelope hello(const std::string& version) {
  bus::Envelope envelope;
  envelope.mutable_hello()->set_agent_version(version);
  return envelope;
}

bus::Envelope welcome(const std::string& host) {
  bus::Envelope envelope;
  envelope.mutable_welcome()->set_host(host);
  return envelope;
}

class BusTest : public ::testing::Test {
 protected:
  std::unique_ptr<BusServer> serve(const std::string& endpoint = "tcp://127.0.0.1:*",
                                   const BusLimits& limits = quick_limits()) {
    BusServer::Options options;
    options.endpoint = endpoint;
    options.keys = server_keys_;
    options.limits = limits;
    options.on_message = [this](BusIncoming message) { at_server_.put(std::move(message)); };
    options.on_connected = [this](const std::string& host) { connected_.put(host); };
    options.on_disconnected = [this](const std::string& host) { disconnected_.put(host); };
    auto server = BusServer::create(std::move(options));
    EXPECT_TRUE(server) << server.error().message();
    EXPECT_TRUE((*server)->enroll("a", a_keys_.public_key));
    return *std::move(server);
  }

  BusClient::Options client_options(const BusServer& server) {
    BusClient::Options options;
    options.endpoint = server.endpoint();
    options.keys = a_keys_;
    options.server_public_key = server_keys_.public_key;
    options.limits = quick_limits();
    options.on_message = [this](BusIncoming message) { at_client_.put(std::move(message)); };
    options.on_connected = [this] { client_up_.put(true); };
    options.on_disconnected = [this] { client_up_.put(false); };
    return options;
  }

  std::unique_ptr<BusClient> connect(const BusServer& server) {
    return connect(client_options(server));
  }

  static std::unique_ptr<BusClient> connect(BusClient::Options options) {
    auto client = BusClient::create(std::move(options));
    EXPECT_TRUE(client) << client.error().message();
    (*client)->start();
    return *std::move(client);
  }

  /// Both ends know of each other.
  std::unique_ptr<BusClient> connect_and_wait(const BusServer& server) {
    auto client = connect(server);
    EXPECT_EQ(client_up_.take(), true);
    EXPECT_EQ(connected_.take(), "a");
    return client;
  }

  /// A peer that follows no rule of ours.
  zmq::socket_t plain_dealer(const BusServer& server, const CurveKeyPair& keys) {
    zmq::socket_t dealer(context_, zmq::socket_type::dealer);
    dealer.set(zmq::sockopt::linger, 0);
    dealer.set(zmq::sockopt::curve_publickey, zmq::buffer(curve_key_bytes(keys.public_key)));
    dealer.set(zmq::sockopt::curve_secretkey, zmq::buffer(curve_key_bytes(keys.secret_key)));
    dealer.set(zmq::sockopt::curve_serverkey,
               zmq::buffer(curve_key_bytes(server_keys_.public_key)));
    dealer.connect(server.endpoint());
    return dealer;
  }

  static void send(zmq::socket_t& dealer, const bus::Envelope& envelope) {
    dealer.send(zmq::buffer(envelope.SerializeAsString()), zmq::send_flags::none);
  }

  const CurveKeyPair server_keys_ = generate_curve_keys().value();
  const CurveKeyPair a_keys_ = generate_curve_keys().value();
  const CurveKeyPair b_keys_ = generate_curve_keys().value();
  Mailbox<BusIncoming> at_server_;
  Mailbox<BusIncoming> at_client_;
  Mailbox<std::string> connected_;
  Mailbox<std::string> disconnected_;
  Mailbox<bool> client_up_;
  zmq::context_t context_;
};

TEST_F(BusTest, AnswersRequestsBothWays) {
  const auto server = serve();
  const auto client = connect_and_wait(*server);
  std::jthread placer([&] {
    auto asked = at_server_.take();
    asked->answer(welcome(asked->host() + " " + asked->envelope().hello().agent_version()));
  });
  std::jthread agent([&] { at_client_.take()->answer(hello("1.0")); });

  const auto welcomed = client->request(hello("0.9"), soon());
  const auto greeted = server->request("a", bus::Envelope(), soon());

  ASSERT_TRUE(welcomed) << welcomed.error().message();
  EXPECT_EQ(welcomed->welcome().host(), "a 0.9");
  ASSERT_TRUE(greeted) << greeted.error().message();
  EXPECT_EQ(greeted->hello().agent_version(), "1.0");
}

TEST_F(BusTest, DeliversNoticesInOrder) {
  const auto server = serve();
  const auto client = connect_and_wait(*server);

  for (const char* version : {"1", "2", "3"}) ASSERT_TRUE(client->send(hello(version)));
  ASSERT_TRUE(server->send("a", welcome("x")));

  for (const char* version : {"1", "2", "3"}) {
    const auto notice = at_server_.take();
    ASSERT_TRUE(notice);
    EXPECT_EQ(notice->envelope().hello().agent_version(), version);
    EXPECT_FALSE(notice->wants_answer());
  }
  EXPECT_EQ(at_client_.take()->envelope().welcome().host(), "x");
}

TEST_F(BusTest, CarriesAFailureBack) {
  const auto server = serve();
  const auto client = connect_and_wait(*server);
  std::jthread agent([&] { at_client_.take()->answer(fail(Errc::kNotFound, "no VM web9")); });

  const auto failed = server->request("a", welcome("x"), soon());

  ASSERT_FALSE(failed);
  EXPECT_EQ(failed.error().code(), Errc::kNotFound);
  EXPECT_EQ(failed.error().message(), "no VM web9");
}

TEST_F(BusTest, TakesAnUnknownFailureCodeForAnIoError) {
  const auto server = serve();
  ASSERT_TRUE(server->enroll("b", b_keys_.public_key));
  auto dealer = plain_dealer(*server, b_keys_);
  send(dealer, hello("b"));
  ASSERT_EQ(connected_.take(), "b");
  std::jthread agent([&] {
    bus::Envelope asked;
    while (asked.request() == 0) {
      zmq::message_t message;
      ASSERT_TRUE(dealer.recv(message));
      ASSERT_TRUE(asked.ParseFromArray(message.data(), static_cast<int>(message.size())));
    }
    bus::Envelope reply;
    reply.set_request(asked.request());
    reply.set_is_reply(true);
    reply.mutable_failure()->set_code(4711);
    send(dealer, reply);
  });

  EXPECT_EQ(server->request("b", welcome("x"), soon()).error().code(), Errc::kIo);
}

TEST_F(BusTest, TimesOutWithoutAnAnswer) {
  const auto server = serve();
  const auto client = connect_and_wait(*server);

  EXPECT_EQ(server->request("a", welcome("x"), in(milliseconds(30))).error().code(),
            Errc::kTimedOut);

  // An answer that comes too late is not taken for that of a later request.
  at_client_.take()->answer(hello("late"));
  std::jthread agent([&] { at_client_.take()->answer(hello("fresh")); });
  EXPECT_EQ(server->request("a", welcome("y"), soon())->hello().agent_version(), "fresh");
}

TEST_F(BusTest, SaysUnavailableForAHostThatIsNotConnected) {
  const auto server = serve();

  EXPECT_EQ(server->request("a", welcome("x"), soon()).error().code(), Errc::kUnavailable);
  EXPECT_EQ(server->send("a", welcome("x")).error().code(), Errc::kUnavailable);
  EXPECT_EQ(server->last_seen("a"), std::nullopt);
}

TEST_F(BusTest, KnowsWhoIsConnected) {
  const auto server = serve();
  auto client = connect_and_wait(*server);
  EXPECT_TRUE(client->connected());
  EXPECT_EQ(client->trouble(), "");
  EXPECT_TRUE(server->last_seen("a"));

  client.reset();

  EXPECT_EQ(disconnected_.take(), "a");
  EXPECT_EQ(server->last_seen("a"), std::nullopt);
}

TEST_F(BusTest, AnUnenrolledHostLearnsHowToGetIn) {
  const auto server = serve();
  ASSERT_TRUE(server->forget("a"));
  const auto client = connect(*server);
  std::string trouble;
  while (trouble.find("hosts enroll") == std::string::npos) {
    trouble = client->trouble();
    std::this_thread::yield();
  }
  EXPECT_NE(trouble.find(a_keys_.public_key), std::string::npos) << trouble;
  EXPECT_EQ(client->request(hello("1"), soon()).error().code(), Errc::kUnavailable);
  EXPECT_EQ(client->send(hello("1")).error().code(), Errc::kUnavailable);

  ASSERT_TRUE(server->enroll("late", a_keys_.public_key));

  EXPECT_EQ(client_up_.take(), true);
  EXPECT_EQ(connected_.take(), "late");
}

TEST_F(BusTest, AWrongServerKeyIsNamedAsTheCause) {
  const auto server = serve();
  auto options = client_options(*server);
  options.server_public_key = b_keys_.public_key;
  const auto client = connect(std::move(options));
  while (client->trouble().find("public key") == std::string::npos) std::this_thread::yield();
  EXPECT_FALSE(client->connected());
  EXPECT_TRUE(connected_.is_empty());
}

TEST_F(BusTest, ForgettingAHostCutsItOffAtOnce) {
  const auto server = serve();
  const auto client = connect_and_wait(*server);
  std::jthread asker([&] {
    EXPECT_EQ(server->request("a", welcome("x"), soon()).error().code(), Errc::kTimedOut);
  });
  ASSERT_TRUE(at_client_.take());

  ASSERT_TRUE(server->forget("a"));

  EXPECT_EQ(disconnected_.take(), "a");
  EXPECT_EQ(server->send("a", welcome("x")).error().code(), Errc::kUnavailable);
  EXPECT_EQ(client->request(hello("1"), in(milliseconds(50))).error().code(), Errc::kTimedOut);
  EXPECT_TRUE(at_server_.is_empty());
  EXPECT_EQ(server->forget("a").error().code(), Errc::kNotFound);
}

TEST_F(BusTest, AForgottenHostLearnsHowToGetInAgain) {
  const auto server = serve();
  auto options = client_options(*server);
  options.limits.silence_max = milliseconds(100);
  const auto client = connect(std::move(options));
  ASSERT_EQ(client_up_.take(), true);

  ASSERT_TRUE(server->forget("a"));

  while (client->trouble().find("hosts enroll") == std::string::npos) std::this_thread::yield();
}

TEST_F(BusTest, AHostThatFallsSilentCountsAsDisconnected) {
  BusLimits limits = quick_limits();
  limits.silence_max = milliseconds(100);
  const auto server = serve("tcp://127.0.0.1:*", limits);
  auto dealer = plain_dealer(*server, a_keys_);
  send(dealer, hello("once"));
  ASSERT_EQ(connected_.take(), "a");

  EXPECT_EQ(disconnected_.take(), "a");

  // Its connection is open still: a word of it is enough.
  send(dealer, hello("again"));
  EXPECT_EQ(connected_.take(), "a");
}

TEST_F(BusTest, AFullQueueRefusesMoreAndSaysSoOnce) {
  const auto server = serve();
  auto options = client_options(*server);
  options.limits.queue_bytes_max = 100;
  const auto client = connect(std::move(options));
  ASSERT_EQ(client_up_.take(), true);
  const auto large = hello(std::string(101, 'x'));

  ::testing::internal::CaptureStderr();
  for (int i = 0; i < 3; ++i) {
    EXPECT_EQ(client->send(large).error().code(), Errc::kUnavailable);
  }
  const std::string full = ::testing::internal::GetCapturedStderr();
  EXPECT_EQ(client->request(large, soon()).error().code(), Errc::kUnavailable);

  const std::size_t first = full.find("warning bus full, messages left out endpoint=");
  EXPECT_NE(first, std::string::npos) << full;
  EXPECT_EQ(full.find("bus full", first + 20), std::string::npos) << full;

  ::testing::internal::CaptureStderr();
  for (const char* version : {"small", "after it was told"}) {
    ASSERT_TRUE(client->send(hello(version)));
    EXPECT_EQ(at_server_.take()->envelope().hello().agent_version(), version);
  }
  EXPECT_NE(::testing::internal::GetCapturedStderr().find("bus takes messages again"),
            std::string::npos);
}

TEST_F(BusTest, RefusesToEnrollNonsense) {
  const auto server = serve();
  EXPECT_EQ(server->enroll("b", "no key").error().code(), Errc::kInvalid);
  EXPECT_EQ(server->enroll("", b_keys_.public_key).error().code(), Errc::kInvalid);
  EXPECT_EQ(server->enroll("b", a_keys_.public_key).error().code(), Errc::kInvalid);
}

TEST_F(BusTest, ANewKeyOfAHostReplacesTheOld) {
  const auto server = serve();
  const auto client = connect_and_wait(*server);

  ASSERT_TRUE(server->enroll("a", b_keys_.public_key));
  EXPECT_EQ(disconnected_.take(), "a");
  auto dealer = plain_dealer(*server, b_keys_);
  send(dealer, hello("b"));

  EXPECT_EQ(connected_.take(), "a");
  EXPECT_EQ(at_server_.take()->envelope().hello().agent_version(), "b");
}

TEST_F(BusTest, TheNewerConnectionOfAKeyIsTheHosts) {
  const auto server = serve();
  auto old_connection = plain_dealer(*server, a_keys_);
  send(old_connection, hello("old"));
  ASSERT_EQ(connected_.take(), "a");
  const auto client = connect(*server);
  EXPECT_EQ(disconnected_.take(), "a");
  EXPECT_EQ(connected_.take(), "a");

  // A message that was still on its way in the old connection does not bring that back.
  send(old_connection, hello("late"));
  EXPECT_EQ(at_server_.take()->envelope().hello().agent_version(), "old");
  EXPECT_EQ(at_server_.take()->envelope().hello().agent_version(), "late");
  ASSERT_TRUE(server->send("a", welcome("x")));

  EXPECT_EQ(at_client_.take()->envelope().welcome().host(), "x");
}

TEST_F(BusTest, BothEndsFindEachOtherAfterTheServerRestarted) {
  auto server = serve();
  const std::string endpoint = server->endpoint();
  const auto client = connect_and_wait(*server);
  std::jthread asker(
      [&] { EXPECT_EQ(client->request(hello("1"), soon()).error().code(), Errc::kTimedOut); });
  ASSERT_TRUE(at_server_.take());

  server.reset();
  EXPECT_EQ(client_up_.take(), false);
  server = serve(endpoint);

  EXPECT_EQ(client_up_.take(), true);
  EXPECT_EQ(connected_.take(), "a");
  std::jthread agent([&] { at_client_.take()->answer(hello("2")); });
  EXPECT_TRUE(server->request("a", welcome("x"), soon()));
}

TEST_F(BusTest, DropsWhatItCannotDecodeAndGoesOn) {
  const auto server = serve();
  auto dealer = plain_dealer(*server, a_keys_);

  for (int i = 0; i < 3; ++i) {
    dealer.send(zmq::str_buffer("\xff\xff\xff garbage"), zmq::send_flags::none);
  }
  dealer.send(zmq::str_buffer("two"), zmq::send_flags::sndmore);
  dealer.send(zmq::str_buffer("parts"), zmq::send_flags::none);
  send(dealer, hello("good"));

  EXPECT_EQ(at_server_.take()->envelope().hello().agent_version(), "good");
}

TEST_F(BusTest, NobodyAnswersForAnother) {
  const auto server = serve();
  const auto client = connect_and_wait(*server);
  ASSERT_TRUE(server->enroll("b", b_keys_.public_key));
  auto dealer = plain_dealer(*server, b_keys_);
  std::jthread agents([&] {
    auto asked = at_client_.take();
    bus::Envelope forged = hello("forged");
    forged.set_request(asked->envelope().request());
    forged.set_is_reply(true);
    send(dealer, forged);
    send(dealer, hello("b"));
    // The forged answer has been seen when the notice after it has.
    EXPECT_EQ(at_server_.take()->host(), "b");
    asked->answer(hello("true"));
  });

  EXPECT_EQ(server->request("a", welcome("x"), soon())->hello().agent_version(), "true");
}

TEST_F(BusTest, RefusesAMessageBeyondItsLimit) {
  const auto server = serve();
  auto options = client_options(*server);
  options.limits.message_bytes_max = 1000;
  const auto client = connect(std::move(options));
  ASSERT_EQ(client_up_.take(), true);
  ASSERT_EQ(connected_.take(), "a");
  const auto huge = hello(std::string(1001, 'x'));

  EXPECT_EQ(client->request(huge, soon()).error().code(), Errc::kInvalid);
  EXPECT_EQ(client->send(huge).error().code(), Errc::kInvalid);

  // An answer that is too large becomes a failure that says so.
  std::jthread agent([&] { at_client_.take()->answer(huge); });
  EXPECT_EQ(server->request("a", welcome("x"), soon()).error().code(), Errc::kInvalid);
}

TEST_F(BusTest, LimitsTheRequestsThatWait) {
  const auto server = serve();
  auto options = client_options(*server);
  options.limits.requests_max = 1;
  const auto client = connect(std::move(options));
  ASSERT_EQ(client_up_.take(), true);
  std::jthread first([&] { EXPECT_TRUE(client->request(hello("1"), soon())); });
  auto asked = at_server_.take();

  EXPECT_EQ(client->request(hello("2"), soon()).error().code(), Errc::kUnavailable);

  asked->answer(welcome("a"));
}

TEST_F(BusTest, ClosingEndsEveryWait) {
  const auto server = serve();
  const auto client = connect_and_wait(*server);
  std::jthread asker([&] {
    EXPECT_EQ(server->request("a", welcome("x"), soon()).error().code(), Errc::kUnavailable);
  });
  auto asked = at_client_.take();

  server->close();

  EXPECT_EQ(server->request("a", welcome("x"), soon()).error().code(), Errc::kUnavailable);
  client->close();
  asked->answer(hello("nobody listens"));
}

TEST_F(BusTest, RefusesAnEndpointOrAKeyThatIsNone) {
  BusServer::Options options;
  options.on_message = [](const BusIncoming&) {};
  options.endpoint = "tcp://127.0.0.1:*";
  EXPECT_EQ(BusServer::create(options).error().code(), Errc::kInvalid);
  options.keys = server_keys_;
  options.endpoint = "nonsense";
  EXPECT_EQ(BusServer::create(options).error().code(), Errc::kInvalid);
  const auto server = serve();
  options.endpoint = server->endpoint();
  EXPECT_EQ(BusServer::create(options).error().code(), Errc::kIo);
  auto wrong = client_options(*server);
  wrong.server_public_key = "nonsense";
  EXPECT_EQ(BusClient::create(wrong).error().code(), Errc::kInvalid);
  wrong = client_options(*server);
  wrong.endpoint = "nonsense";
  EXPECT_EQ(BusClient::create(wrong).error().code(), Errc::kInvalid);
}

}  // namespace
}  // namespace samepage
