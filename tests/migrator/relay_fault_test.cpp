// The promise under test: whatever happens on the wire, on the target's host or to a QEMU, the
// target's QEMU gets a prefix of the source's stream, and nobody believes that all was delivered
// when it was not. Each test plays one fault and says so in its name.

#include <random>

#include <gtest/gtest.h>

#include "migrator/batch.h"
#include "migrator/peer_link.h"
#include "tests/fakes/fake_qemu_stream.h"
#include "tests/migrator/relay_harness.h"

namespace samepage::migrator {
namespace {

using fakes::FakeByteStream;
using fakes::FakeQemuStream;

struct Guest {
  Bytes stream;
  HostPages pages = std::make_shared<std::vector<Bytes>>();  ///< Of which all are in the stream.

  explicit Guest(std::size_t page_count, unsigned seed = 1) {
    std::mt19937_64 random(seed);
    stream = fakes::fake_guest_stream(page_count, random, pages.get());
  }
};

/// The shortest stream with everything in it: two references, a literal page, a zero page.
Guest short_guest() {
  Guest guest(0);
  std::mt19937_64 random(5);
  for (int i = 0; i < 2; ++i) guest.pages->push_back(fakes::random_bytes(kPageSize, random));
  const auto page = [&](std::size_t i) {
    return std::span<const std::byte>((*guest.pages)[i]).first<kPageSize>();
  };
  FakeQemuStream stream;
  stream.file_header().section_start("ram", 4).ram_sizes(4 * kPageSize);
  stream.ram_block("pc.ram", 4 * kPageSize).end_of_section().section_part();
  stream.first_page("pc.ram", 0, page(0));
  stream.page(kPageSize, page(1)).zero(2 * kPageSize);
  const Bytes literal(kPageSize, std::byte{3});
  stream.page(3 * kPageSize, std::span(literal).first<kPageSize>());
  stream.end_of_section().devices({});
  guest.stream.assign(stream.view().begin(), stream.view().end());
  return guest;
}

bool is_prefix(const Bytes& part, const Bytes& whole) {
  return part.size() <= whole.size() && std::equal(part.begin(), part.end(), whole.begin());
}

/// Short waits, for faults that only waiting shows.
RelayOptions impatient() {
  RelayOptions options;
  options.stall_max = std::chrono::milliseconds(150);
  options.quiet_max = std::chrono::milliseconds(150);
  return options;
}

TEST(RelayFaultTest, PagesThatChangedMeanwhileAreSentAgain) {
  const Guest guest(800);
  const auto cache = make_cache(guest.pages);
  for (std::size_t i = 0; i < guest.pages->size(); i += 3) (*guest.pages)[i][100] ^= std::byte{1};
  RelayHarness relay(*cache);

  EXPECT_TRUE(relay.migrate(guest.stream) == guest.stream);

  EXPECT_TRUE(relay.target->delivered());
  EXPECT_GT(relay.source->counters().pages_resent, 0U);
  EXPECT_EQ(relay.source->counters().pages_resent, relay.target->counters().pages_resent);
}

TEST(RelayFaultTest, APageSourceThatLiesCostsOnlyResends) {
  const Guest guest(800);
  const auto cache = make_cache(guest.pages);
  for (Bytes& page : *guest.pages) page.assign(kPageSize, std::byte{0xEE});
  RelayHarness relay(*cache);

  EXPECT_TRUE(relay.migrate(guest.stream) == guest.stream);

  EXPECT_EQ(relay.source->counters().pages_resent, relay.source->counters().page_refs);
}

TEST(RelayFaultTest, AFilterWithFalsePositivesCostsOnlyResends) {
  const Guest guest(800, 1);
  const Guest other(800, 2);
  // So few cells that nearly every lookup finds them set.
  const auto cache = make_cache(other.pages, {.filter_bytes_max = 64});
  RelayHarness relay(*cache);

  EXPECT_TRUE(relay.migrate(guest.stream) == guest.stream);

  EXPECT_GT(relay.source->counters().pages_resent, 100U);
}

/// What a source sends to a target for `guest`, byte by byte.
Bytes record_wire(const Guest& guest, pagecache::PageCache& cache) {
  RelayHarness relay(cache);
  EXPECT_TRUE(relay.migrate(guest.stream) == guest.stream);
  EXPECT_GT(relay.source->counters().page_refs, 0U);
  return relay.wire.first->written();
}

struct Replay {
  Result<void> result = fail(Errc::kInvalid, "not run");
  Bytes delivered;
  bool believed = false;
};

/// A target that reads `wire` and then the end of the connection.
Replay replay(std::span<const std::byte> wire, pagecache::PageCache& cache,
              const fakes::WireFault& fault) {
  auto peer = FakeByteStream::connect(wire.size() + 1);
  auto qemu = FakeByteStream::connect();
  peer.first->set_fault(fault);
  EXPECT_EQ(peer.first->write_all(wire, in_time()).has_value(), !fault.cut_after);
  (void)peer.first->finish_writing();
  const auto target =
      RelayTarget::create({}, {*qemu.second, *peer.second}, cache, test_domain, kSecret).value();
  // QEMU has closed its return path, so that a target that believes need not wait for that.
  (void)qemu.first->finish_writing();
  Replay replay;
  replay.result = target->run();
  replay.believed = target->delivered();
  replay.delivered = read_to_end(*qemu.first);
  return replay;
}

TEST(RelayFaultTest, EveryFlippedBitIsFound) {
  const Guest guest = short_guest();
  const auto cache = make_cache(guest.pages);
  const Bytes wire = record_wire(guest, *cache);
  ASSERT_TRUE(replay(wire, *cache, {}).believed);

  std::uint64_t harmless = 0;
  for (std::uint64_t bit = 0; bit < 8 * wire.size(); ++bit) {
    const Replay seen = replay(wire, *cache, {.flip_bit = bit, .cut_after = {}});

    ASSERT_TRUE(is_prefix(seen.delivered, guest.stream)) << bit;
    ASSERT_EQ(seen.believed, seen.result.has_value()) << bit;
    if (!seen.believed) continue;
    ASSERT_TRUE(seen.delivered == guest.stream) << bit;
    ++harmless;
  }
  // The size of a history that nothing is copied from does not matter; a few bits of a zstd frame
  // mean nothing; only TLS notices those.
  EXPECT_LE(harmless, 64 + 8 * wire.size() / 100);
}

TEST(RelayFaultTest, EveryTruncationIsFound) {
  const Guest guest = short_guest();
  const auto cache = make_cache(guest.pages);
  const Bytes wire = record_wire(guest, *cache);

  for (std::uint64_t size = 0; size < wire.size(); ++size) {
    const Replay seen = replay(wire, *cache, {.flip_bit = {}, .cut_after = size});

    ASSERT_EQ(seen.result.error().code(), Errc::kUnavailable) << size;
    ASSERT_FALSE(seen.believed) << size;
    ASSERT_TRUE(is_prefix(seen.delivered, guest.stream)) << size;
  }
}

TEST(RelayFaultTest, ADamagedReplyNeverDeliversWrongly) {
  const Guest guest = short_guest();
  const auto cache = make_cache(guest.pages);
  Bytes replies;
  {
    RelayHarness relay(*cache);
    relay.migrate(guest.stream);
    replies = relay.wire.second->written();
  }
  for (std::uint64_t bit = 0; bit < 8 * replies.size(); bit += 5) {
    RelayHarness relay(*cache, impatient());
    relay.wire.second->set_fault({.flip_bit = bit, .cut_after = {}});

    const Bytes got = relay.migrate(guest.stream);

    ASSERT_TRUE(is_prefix(got, guest.stream)) << bit;
    const bool believed = relay.source->delivered() || relay.target->delivered();
    ASSERT_TRUE(!believed || got == guest.stream) << bit;
  }
}

TEST(RelayFaultTest, ACutWireBreaksBothQemus) {
  const Guest guest(900);
  const auto cache = make_cache(guest.pages);
  for (const std::uint64_t cut : {0U, 3U, 20U, 1500U, 4000U}) {
    SCOPED_TRACE(cut);
    RelayHarness relay(*cache);
    relay.wire.first->set_fault({.flip_bit = {}, .cut_after = cut});

    const Bytes got = relay.migrate(guest.stream);

    EXPECT_TRUE(is_prefix(got, guest.stream));
    EXPECT_EQ(relay.source_result.error().code(), Errc::kUnavailable);
    EXPECT_EQ(relay.target_result.error().code(), Errc::kUnavailable);
    EXPECT_FALSE(relay.source->delivered());
    EXPECT_FALSE(relay.target->delivered());
    EXPECT_FALSE(relay.source_qemu().write_all(guest.stream, in_time()));
  }
}

TEST(RelayFaultTest, ATargetQemuThatDiesBreaksTheSourcesStream) {
  const Guest guest(4000);
  const auto cache = empty_cache();
  RelayHarness relay(*cache);
  relay.start();
  std::thread dying([&] {
    (void)read_exactly(relay.target_qemu(), 1U << 20U);
    relay.target_qemu().shut_down();
  });

  EXPECT_FALSE(relay.source_qemu().write_all(guest.stream, in_time()));
  relay.join();
  dying.join();

  EXPECT_EQ(relay.source_result.error().code(), Errc::kUnavailable);
  EXPECT_EQ(relay.target_result.error().code(), Errc::kUnavailable);
}

TEST(RelayFaultTest, ASourceQemuThatBreaksOffIsNoEnd) {
  const Guest guest(100);
  const auto cache = empty_cache();
  RelayHarness relay(*cache);
  relay.start();
  ASSERT_TRUE(relay.source_qemu().write_all(std::span(guest.stream).first(9000), in_time()));
  relay.source_qemu().shut_down();

  const Bytes got = read_to_end(relay.target_qemu());
  relay.join();

  EXPECT_TRUE(is_prefix(got, guest.stream));
  EXPECT_FALSE(relay.target->delivered());
  EXPECT_FALSE(relay.source_result);
  EXPECT_FALSE(relay.target_result);
}

TEST(RelayFaultTest, AQemuThatFallsSilentTimesOut) {
  const auto cache = empty_cache();
  RelayHarness relay(*cache, impatient());
  relay.start();
  relay.join();

  const bool timed_out = (relay.source_result.error().code() == Errc::kTimedOut) ||
                         (relay.target_result.error().code() == Errc::kTimedOut);
  EXPECT_TRUE(timed_out);
}

TEST(RelayFaultTest, AQemuThatDoesNotReadTimesOut) {
  const Guest guest(16'000);
  const auto cache = empty_cache();
  RelayOptions options = impatient();
  options.quiet_max = std::chrono::seconds(20);
  RelayHarness relay(*cache, options);
  relay.start();

  EXPECT_FALSE(relay.source_qemu().write_all(guest.stream, in_time()));
  relay.join();

  EXPECT_FALSE(relay.source_result);
  EXPECT_FALSE(relay.target_result);
  EXPECT_FALSE(relay.target->delivered());
}

/// A source relay whose target the test plays, message by message.
class PlayedTarget {
 public:
  explicit PlayedTarget(const RelayOptions& options = impatient()) {
    source_ =
        RelaySource::create(options, {*qemu_.second, *wire_.second}, test_domain, kSecret).value();
    thread_ = std::thread([this] { result = source_->run(); });
  }
  ~PlayedTarget() {
    wire_.first->shut_down();
    join();
  }
  PlayedTarget(const PlayedTarget&) = delete;
  PlayedTarget& operator=(const PlayedTarget&) = delete;

  void greet() {
    EXPECT_EQ(link.receive(in_time()).value().type, MessageType::kHello);
    send(MessageType::kHello, encode_hello({}));
    send(MessageType::kFilter, {});
  }
  void send(MessageType type, std::span<const std::byte> body) {
    (void)link.send(type, body, in_time());
  }
  Errc error() {
    join();
    return result.error().code();
  }
  void join() {
    if (thread_.joinable()) thread_.join();
  }
  FakeByteStream& qemu() { return *qemu_.first; }

 private:
  std::pair<std::unique_ptr<FakeByteStream>, std::unique_ptr<FakeByteStream>> qemu_ =
      FakeByteStream::connect();
  std::pair<std::unique_ptr<FakeByteStream>, std::unique_ptr<FakeByteStream>> wire_ =
      FakeByteStream::connect(64U << 20U);
  std::unique_ptr<RelaySource> source_;
  std::thread thread_;

 public:
  PeerLink link{*wire_.first};
  Result<void> result = fail(Errc::kInvalid, "not run");
};

TEST(RelayFaultTest, ATargetThatNeverAcknowledgesTimesOutWithABoundedWindow) {
  const Guest guest(8000);
  RelayOptions options = impatient();
  options.batches_in_flight_max = 3;
  options.wire_bytes_in_flight_max = 100U << 20U;
  options.quiet_max = std::chrono::seconds(20);
  PlayedTarget target(options);
  target.greet();

  EXPECT_FALSE(target.qemu().write_all(guest.stream, in_time()));

  EXPECT_EQ(target.error(), Errc::kTimedOut);
  int batches = 0;
  while (const auto message = target.link.receive(in_time())) {
    EXPECT_EQ(message->type, MessageType::kBatch);
    ++batches;
  }
  EXPECT_EQ(batches, 3);
}

TEST(RelayFaultTest, TheSourceRefusesWhatNoTargetSays) {
  const std::vector<std::pair<MessageType, Bytes>> lies{
      {MessageType::kAck, encode_ack(0)},
      {MessageType::kAck, encode_ack(UINT64_MAX)},
      {MessageType::kAck, {}},
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

TEST(RelayFaultTest, TheSourceRefusesAnotherVersion) {
  PlayedTarget target;
  Bytes hello = encode_hello({});
  hello[8] = std::byte{9};
  target.send(MessageType::kHello, hello);

  EXPECT_EQ(target.error(), Errc::kInvalid);
}

TEST(RelayFaultTest, TheSourceRefusesADamagedFilter) {
  PlayedTarget target;
  target.send(MessageType::kHello, encode_hello({}));
  target.send(MessageType::kFilter, Bytes(100, std::byte{0xFF}));

  EXPECT_EQ(target.error(), Errc::kCorrupt);
}

Bytes bytes_of(std::string_view text) {
  const auto bytes = std::as_bytes(std::span(text));
  return {bytes.begin(), bytes.end()};
}

/// A target relay whose source the test plays.
class PlayedSource {
 public:
  explicit PlayedSource(pagecache::PageCache& cache, const RelayOptions& options = impatient()) {
    target_ =
        RelayTarget::create(options, {*qemu_.second, *wire_.second}, cache, test_domain, kSecret)
            .value();
    thread_ = std::thread([this] { result = target_->run(); });
    EXPECT_EQ(link.receive(in_time()).value().type, MessageType::kHello);
    send(MessageType::kHello, encode_hello({}));
    EXPECT_EQ(link.receive(in_time()).value().type, MessageType::kFilter);
  }
  ~PlayedSource() {
    wire_.first->shut_down();
    join();
  }
  PlayedSource(const PlayedSource&) = delete;
  PlayedSource& operator=(const PlayedSource&) = delete;

  void send(MessageType type, std::span<const std::byte> body) {
    (void)link.send(type, body, in_time());
  }
  /// A batch of a text and, perhaps, a page that the target must ask for.
  void send_batch(std::uint64_t sequence, std::string_view text, const Bytes* page = nullptr,
                  PageHash hash = {1}) {
    BatchEncoder encoder;
    Bytes stretch = bytes_of(text);
    encoder.add_literal(std::as_bytes(std::span(text)));
    if (page != nullptr) {
      const StreamToken token{.kind = StreamToken::Kind::kPage, .bytes = *page};
      encoder.add_found(token, hash);
      stretch.insert(stretch.end(), page->begin(), page->end());
    }
    BatchHeader header{.sequence = sequence, .begin = sent, .size = stretch.size(), .mac = {}};
    header.mac = stretch_mac(key, sequence, stretch);
    if (lies) header.mac.bytes[0] ^= std::byte{1};
    sent += stretch.size();
    send(MessageType::kBatch, whole(encoder.finish(header, 1)));
  }
  void send_end(StreamEnd end) {
    end.mac = end_mac(key, end);
    send(MessageType::kEnd, encode_end(end));
  }
  Errc error() {
    join();
    return result.error().code();
  }
  void join() {
    if (thread_.joinable()) thread_.join();
  }
  /// Says no more, as a source that has left.
  void hang_up() { (void)wire_.first->finish_writing(); }
  Bytes delivered() { return read_to_end(*qemu_.first); }
  bool believed() const { return target_->delivered(); }

 private:
  std::pair<std::unique_ptr<FakeByteStream>, std::unique_ptr<FakeByteStream>> qemu_ =
      FakeByteStream::connect(64U << 20U);
  std::pair<std::unique_ptr<FakeByteStream>, std::unique_ptr<FakeByteStream>> wire_ =
      FakeByteStream::connect(64U << 20U);
  std::unique_ptr<RelayTarget> target_;
  std::thread thread_;

 public:
  PeerLink link{*wire_.first};
  const DigestKey key = stream_mac_key(kSecret);
  std::uint64_t sent = 0;
  bool lies = false;  ///< About the next batches' MACs.
  Result<void> result = fail(Errc::kInvalid, "not run");
};

TEST(RelayFaultTest, ABatchWithAnotherMacIsNotDelivered) {
  const auto cache = empty_cache();
  PlayedSource source(*cache);
  source.send_batch(0, "good");
  ASSERT_EQ(source.link.receive(in_time()).value().type, MessageType::kAck);
  source.lies = true;
  source.send_batch(1, "bad");

  EXPECT_EQ(source.error(), Errc::kCorrupt);
  EXPECT_EQ(source.delivered(), bytes_of("good"));
}

TEST(RelayFaultTest, ABatchOutOfOrderIsNotDelivered) {
  const auto cache = empty_cache();
  PlayedSource source(*cache);
  source.send_batch(1, "late");

  EXPECT_EQ(source.error(), Errc::kCorrupt);
  EXPECT_TRUE(source.delivered().empty());
}

TEST(RelayFaultTest, ABatchBehindTheEndIsNotDelivered) {
  const auto cache = empty_cache();
  const Bytes page(kPageSize, std::byte{1});
  PlayedSource source(*cache);
  source.send_batch(0, "held", &page);
  source.send_end({.sequence = 1, .stream_bytes = source.sent, .mac = {}});
  source.send_batch(1, "more");

  EXPECT_EQ(source.error(), Errc::kCorrupt);
  EXPECT_TRUE(source.delivered().empty());
}

TEST(RelayFaultTest, AnEndThatIsNotTheStreamsIsNotBelieved) {
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

TEST(RelayFaultTest, AResentPageMustBeTheStreams) {
  const auto cache = empty_cache();
  const Bytes page(kPageSize, std::byte{1});
  BytePacker packer;
  for (int lie = 0; lie < 5; ++lie) {
    SCOPED_TRACE(lie);
    PlayedSource source(*cache);
    source.send_batch(0, "page", &page);
    const auto missing = decode_missing(source.link.receive(in_time()).value().body).value();
    ResentPages resent{.sequence = missing.sequence, .refs = missing.refs, .pages = page};
    if (lie == 0) resent.pages[4095] ^= std::byte{1};
    if (lie == 1) ++resent.sequence;
    if (lie == 2) resent.refs = {1};
    if (lie == 3) resent = {.sequence = missing.sequence, .refs = {}, .pages = {}};
    source.send(MessageType::kResend, encode_resend(resent, packer));
    if (lie == 4) {
      EXPECT_EQ(source.link.receive(in_time()).value().type, MessageType::kAck);
      continue;
    }
    // The target asks once what is wrong with the batch, and the source insists.
    if (lie == 0) {
      const auto doubt = source.link.receive(in_time()).value();
      ASSERT_EQ(doubt.type, MessageType::kDoubt);
      EXPECT_EQ(decode_doubt(doubt.body).value().digests.size(), 1U);
      source.send(MessageType::kResend, encode_resend(resent, packer));
    }

    EXPECT_EQ(source.error(), Errc::kCorrupt);
    EXPECT_TRUE(source.delivered().empty());
  }
}

TEST(RelayFaultTest, ABatchThatIsInDoubtIsMended) {
  const auto pages = std::make_shared<std::vector<Bytes>>(1, Bytes(kPageSize, std::byte{1}));
  const auto cache = make_cache(pages);
  const Bytes& page = pages->front();
  // The hash agrees and the page does not, as if it had changed behind the hash.
  Bytes other = page;
  other[7] = std::byte{2};
  BytePacker packer;
  PlayedSource source(*cache);
  source.send_batch(0, "page", &other, hash_page(std::span(page).first<kPageSize>(), {11}));

  const auto doubt = source.link.receive(in_time()).value();
  ASSERT_EQ(doubt.type, MessageType::kDoubt);
  source.send(MessageType::kResend,
              encode_resend({.sequence = 0, .refs = {0}, .pages = other}, packer));
  source.send_end({.sequence = 1, .stream_bytes = source.sent, .mac = {}});
  source.hang_up();
  source.join();

  EXPECT_TRUE(source.believed());
  Bytes all = bytes_of("page");
  all.insert(all.end(), other.begin(), other.end());
  EXPECT_EQ(source.delivered(), all);
}

TEST(RelayFaultTest, PagesThatNobodyAskedForAreRefused) {
  const auto cache = empty_cache();
  PlayedSource source(*cache);
  BytePacker packer;
  source.send(MessageType::kResend,
              encode_resend({.sequence = 0, .refs = {0}, .pages = Bytes(kPageSize)}, packer));

  EXPECT_EQ(source.error(), Errc::kCorrupt);
}

TEST(RelayFaultTest, ASourceThatNeverResendsTimesOut) {
  const auto cache = empty_cache();
  const Bytes page(kPageSize, std::byte{1});
  RelayOptions options = impatient();
  options.quiet_max = std::chrono::seconds(20);
  PlayedSource source(*cache, options);
  source.send_batch(0, "page", &page);

  EXPECT_EQ(source.error(), Errc::kTimedOut);
  EXPECT_TRUE(source.delivered().empty());
}

TEST(RelayFaultTest, TheTargetHoldsABoundedNumberOfBatches) {
  const auto cache = empty_cache();
  const Bytes page(kPageSize, std::byte{1});
  PlayedSource source(*cache);
  for (std::uint64_t i = 0; i <= kBatchesInFlightMax; ++i) source.send_batch(i, "page", &page);

  EXPECT_EQ(source.error(), Errc::kCorrupt);
}

TEST(RelayFaultTest, TheTargetRefusesWhatNoSourceSays) {
  const auto cache = empty_cache();
  for (const MessageType type : {MessageType::kAck, MessageType::kMissing, MessageType::kFilter,
                                 MessageType::kReturnPath, MessageType::kHello}) {
    SCOPED_TRACE(static_cast<int>(type));
    PlayedSource source(*cache);
    source.send(type, {});

    EXPECT_EQ(source.error(), Errc::kCorrupt);
  }
}

TEST(RelayFaultTest, AMessageOfAnUnknownTypeOrTooLongIsRefused) {
  const auto cache = empty_cache();
  for (const std::string_view header :
       {std::string_view("\x63\0\0\0\0", 5), std::string_view("\x03\xFF\xFF\xFF\xFF", 5)}) {
    auto wire = FakeByteStream::connect();
    ASSERT_TRUE(wire.first->write_all(std::as_bytes(std::span(header)), in_time()));
    PeerLink link(*wire.second);

    EXPECT_EQ(link.receive(in_time()).error().code(), Errc::kCorrupt);
  }
}

}  // namespace
}  // namespace samepage::migrator
