// The promise under test: a relay whose peer lies, falls silent or says what it may not ends with
// an error in bounded time and memory, and QEMU gets nothing of it. The test plays the peer,
// message by message.

#include <algorithm>
#include <random>
#include <vector>

#include <gtest/gtest.h>

#include "tests/fakes/fake_qemu_stream.h"
#include "tests/migrator/played_peer.h"

namespace samepage::migrator {
namespace {

TEST(RelayPeerTest, ATargetThatNeverAcknowledgesTimesOutWithABoundedWindow) {
  std::mt19937_64 random(1);
  const Bytes stream = fakes::fake_guest_stream(8000, random, nullptr);
  RelayOptions options = impatient();
  options.batches_in_flight_max = 3;
  options.wire_bytes_in_flight_max = 100U << 20U;
  options.quiet_max = std::chrono::seconds(20);
  PlayedTarget target(options);
  target.greet();

  EXPECT_FALSE(target.qemu().write_all(stream, in_time()));

  EXPECT_EQ(target.error(), Errc::kTimedOut);
  int batches = 0;
  while (const auto message = target.link.receive(in_time())) {
    EXPECT_EQ(message->type, MessageType::kBatch);
    ++batches;
  }
  EXPECT_EQ(batches, 3);
}

TEST(RelayPeerTest, TheSourceRefusesWhatNoTargetSays) {
  const std::vector<std::pair<MessageType, Bytes>> lies{
      {MessageType::kAck, encode_ack({.sequence = 0})},
      {MessageType::kAck, encode_ack({.sequence = UINT64_MAX})},
      {MessageType::kAck, {}},
      {MessageType::kArrived, encode_arrived(0)},
      {MessageType::kArrived, {}},
      {MessageType::kMissing, encode_missing({.sequence = 0, .refs = {1}})},
      {MessageType::kBatch, {}},
      {MessageType::kHello, encode_hello({})},
      {MessageType::kEnd, {}},
  };
  for (const auto& [type, body] : lies) {
    SCOPED_TRACE(static_cast<int>(type));
    PlayedTarget target;
    target.greet();
    target.send(type, body);

    EXPECT_EQ(target.error(), Errc::kCorrupt);
  }
}

TEST(RelayPeerTest, TheSourceRefusesAnotherVersion) {
  PlayedTarget target;
  Bytes hello = encode_hello({});
  hello[8] = std::byte{9};
  target.send(MessageType::kHello, hello);

  EXPECT_EQ(target.error(), Errc::kInvalid);
}

TEST(RelayPeerTest, TheSourceRefusesADamagedFilter) {
  PlayedTarget target;
  target.send(MessageType::kHello, encode_hello({}));
  target.send(MessageType::kFilter, Bytes(100, std::byte{0xFF}));

  EXPECT_EQ(target.error(), Errc::kCorrupt);
}

TEST(RelayPeerTest, ABatchWithAnotherMacIsNotDelivered) {
  const auto cache = empty_cache();
  PlayedSource source(*cache);
  source.send_batch(0, "good");
  ASSERT_EQ(source.answer().type, MessageType::kAck);
  source.lies = true;
  source.send_batch(1, "bad");

  EXPECT_EQ(source.error(), Errc::kCorrupt);
  EXPECT_EQ(source.delivered(), bytes_of("good"));
}

TEST(RelayPeerTest, APipesBatchIsDeliveredAndNotKept) {
  const auto cache = empty_cache();
  const Bytes page(kPageSize, std::byte{7});
  for (const bool is_pipe : {false, true}) {
    SCOPED_TRACE(is_pipe);
    PlayedSource source(*cache);
    source.send_page(0, page, is_pipe);
    ASSERT_EQ(source.answer().type, MessageType::kAck);
    source.send_copy(1, page, 0);
    if (is_pipe) {
      EXPECT_EQ(source.error(), Errc::kCorrupt);
      EXPECT_EQ(source.delivered(), page);
    } else {
      EXPECT_EQ(source.answer().type, MessageType::kAck);
    }
  }
}

TEST(RelayPeerTest, ABatchOutOfOrderIsNotDelivered) {
  const auto cache = empty_cache();
  PlayedSource source(*cache);
  source.send_batch(1, "late");

  EXPECT_EQ(source.error(), Errc::kCorrupt);
  EXPECT_TRUE(source.delivered().empty());
}

TEST(RelayPeerTest, ABatchBehindTheEndIsNotDelivered) {
  const auto cache = empty_cache();
  const Bytes page(kPageSize, std::byte{1});
  PlayedSource source(*cache);
  source.send_batch(0, "held", &page);
  source.send_end({.sequence = 1, .stream_bytes = source.sent, .mac = {}});
  source.send_batch(1, "more");

  EXPECT_EQ(source.error(), Errc::kCorrupt);
  EXPECT_TRUE(source.delivered().empty());
}

TEST(RelayPeerTest, AnEndThatIsNotTheStreamsIsNotBelieved) {
  const auto cache = empty_cache();
  for (int lie = 0; lie < 4; ++lie) {
    SCOPED_TRACE(lie);
    PlayedSource source(*cache);
    source.send_batch(0, "all");
    StreamEnd end{.sequence = 1, .stream_bytes = 3, .mac = {}};
    if (lie == 0) ++end.sequence;
    if (lie == 1) ++end.stream_bytes;
    end.mac = end_mac(source.key, end);
    if (lie == 2) end.mac.bytes[31] ^= std::byte{1};
    const bool honest = lie == 3;
    source.send(MessageType::kEnd, encode_end(end));
    source.hang_up();

    source.join();
    EXPECT_EQ(source.result.has_value(), honest);
    EXPECT_EQ(source.believed(), honest);
    if (!honest) {
      EXPECT_EQ(source.error(), Errc::kCorrupt);
    }
  }
}

TEST(RelayPeerTest, AResentPageMustBeTheStreams) {
  const auto cache = empty_cache();
  const Bytes page(kPageSize, std::byte{1});
  BytePacker packer;
  for (int lie = 0; lie < 5; ++lie) {
    SCOPED_TRACE(lie);
    PlayedSource source(*cache);
    source.send_batch(0, "page", &page);
    const auto missing = decode_missing(source.answer().body).value();
    ResentPages resent{.sequence = missing.sequence, .refs = missing.refs, .pages = page};
    if (lie == 0) resent.pages[4095] ^= std::byte{1};
    if (lie == 1) ++resent.sequence;
    if (lie == 2) resent.refs = {1};
    if (lie == 3) resent = {.sequence = missing.sequence, .refs = {}, .pages = {}};
    source.send(MessageType::kResend, encode_resend(resent, packer));
    if (lie == 4) {
      EXPECT_EQ(source.answer().type, MessageType::kAck);
      continue;
    }
    // The target asks once what is wrong with the batch, and the source insists.
    if (lie == 0) {
      const auto doubt = source.answer();
      ASSERT_EQ(doubt.type, MessageType::kDoubt);
      EXPECT_EQ(decode_doubt(doubt.body).value().digests.size(), 1U);
      source.send(MessageType::kResend, encode_resend(resent, packer));
    }

    EXPECT_EQ(source.error(), Errc::kCorrupt);
    EXPECT_TRUE(source.delivered().empty());
  }
}

TEST(RelayPeerTest, ABatchThatIsInDoubtIsMended) {
  const auto pages = std::make_shared<std::vector<Bytes>>(1, Bytes(kPageSize, std::byte{1}));
  const auto cache = make_cache(pages);
  const Bytes& page = pages->front();
  // The hash agrees and the page does not, as if it had changed behind the hash.
  Bytes other = page;
  other[7] = std::byte{2};
  BytePacker packer;
  PlayedSource source(*cache);
  source.send_batch(0, "page", &other, hash_page(std::span(page).first<kPageSize>(), {11}));

  const auto doubt = source.answer();
  ASSERT_EQ(doubt.type, MessageType::kDoubt);
  source.send(MessageType::kResend,
              encode_resend({.sequence = 0, .refs = {0}, .pages = other}, packer));
  source.send_end({.sequence = 1, .stream_bytes = source.sent, .mac = {}});
  source.hang_up();
  source.join();

  EXPECT_TRUE(source.believed());
  Bytes all(other.size() + 4);
  std::ranges::copy(bytes_of("page"), all.begin());
  std::ranges::copy(other, all.begin() + 4);
  EXPECT_EQ(source.delivered(), all);
}

TEST(RelayPeerTest, PagesThatNobodyAskedForAreRefused) {
  const auto cache = empty_cache();
  PlayedSource source(*cache);
  BytePacker packer;
  source.send(MessageType::kResend,
              encode_resend({.sequence = 0, .refs = {0}, .pages = Bytes(kPageSize)}, packer));

  EXPECT_EQ(source.error(), Errc::kCorrupt);
}

TEST(RelayPeerTest, ASourceThatNeverResendsTimesOut) {
  const auto cache = empty_cache();
  const Bytes page(kPageSize, std::byte{1});
  RelayOptions options = impatient();
  options.quiet_max = std::chrono::seconds(20);
  PlayedSource source(*cache, options);
  source.send_batch(0, "page", &page);

  EXPECT_EQ(source.error(), Errc::kTimedOut);
  EXPECT_TRUE(source.delivered().empty());
}

TEST(RelayPeerTest, TheTargetHoldsABoundedNumberOfBatches) {
  const auto cache = empty_cache();
  const Bytes page(kPageSize, std::byte{1});
  PlayedSource source(*cache);
  for (std::uint64_t i = 0; i <= kBatchesInFlightMax; ++i) source.send_batch(i, "page", &page);

  EXPECT_EQ(source.error(), Errc::kCorrupt);
}

TEST(RelayPeerTest, TheTargetRefusesWhatNoSourceSays) {
  const auto cache = empty_cache();
  for (const MessageType type :
       {MessageType::kAck, MessageType::kArrived, MessageType::kMissing, MessageType::kFilter,
        MessageType::kReturnPath, MessageType::kHello}) {
    SCOPED_TRACE(static_cast<int>(type));
    PlayedSource source(*cache);
    source.send(type, {});

    EXPECT_EQ(source.error(), Errc::kCorrupt);
  }
}

TEST(RelayPeerTest, AMessageOfAnUnknownTypeOrTooLongIsRefused) {
  const auto cache = empty_cache();
  for (const std::string_view header :
       {std::string_view("\x63\0\0\0\0", 5), std::string_view("\x03\xFF\xFF\xFF\xFF", 5)}) {
    auto wire = fakes::FakeByteStream::connect();
    ASSERT_TRUE(wire.first->write_all(std::as_bytes(std::span(header)), in_time()));
    PeerLink link(*wire.second);

    EXPECT_EQ(link.receive(in_time()).error().code(), Errc::kCorrupt);
  }
}

}  // namespace
}  // namespace samepage::migrator
