// The promise under test: whatever happens on the wire, on the target's host or to a QEMU, the
// target's QEMU gets a prefix of the source's stream, and nobody believes that all was delivered
// when it was not. Each test plays one fault and says so in its name.

#include <random>

#include <gtest/gtest.h>

#include "tests/fakes/fake_qemu_stream.h"
#include "tests/migrator/played_peer.h"

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
  // More than the relays hold for it.
  const Guest guest(24'000);
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

}  // namespace
}  // namespace samepage::migrator
