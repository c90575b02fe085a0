// The promise under test: the target's QEMU gets the bytes that the source's QEMU wrote, soon, and
// answers go back; pages that the target has cost a reference.

#include <atomic>
#include <random>

#include <gtest/gtest.h>

#include "migrator/hit_watch.h"
#include "migrator/link_meter.h"
#include "tests/fakes/fake_qemu_stream.h"
#include "tests/migrator/relay_harness.h"

namespace samepage::migrator {
namespace {

using fakes::FakeQemuStream;

/// Every page that `known()` says is on the target's host.
template <class Known>
HostPages some_of(const std::vector<Bytes>& sent, Known known) {
  auto pages = std::make_shared<std::vector<Bytes>>();
  for (const Bytes& page : sent) {
    if (known()) pages->push_back(page);
  }
  return pages;
}

/// Waits for the rest of a record however busy the machine is.
RelayOptions patient() {
  RelayOptions options;
  options.flush_after = std::chrono::seconds(10);
  options.batch_age_max = std::chrono::seconds(10);
  return options;
}

TEST(RelayTest, DeliversTheSameBytes) {
  for (unsigned seed = 0; seed < 24; ++seed) {
    SCOPED_TRACE(seed);
    std::mt19937_64 random(seed);
    std::vector<Bytes> sent;
    const Bytes stream = fakes::fake_guest_stream(1 + random() % 800, random, &sent);
    const auto cache = make_cache(some_of(sent, [&] { return random() % 4 < seed % 5; }));
    const std::size_t piece_max = std::size_t{64} << (seed % 12);
    RelayHarness relay(*cache);

    const Bytes got = relay.migrate(stream, [&] { return 1 + random() % piece_max; });

    EXPECT_TRUE(got == stream);
    EXPECT_TRUE(relay.source_result);
    EXPECT_TRUE(relay.target_result);
    EXPECT_TRUE(relay.source->delivered());
    EXPECT_TRUE(relay.target->delivered());
  }
}

TEST(RelayTest, DeliversForeignStreams) {
  const auto cache = empty_cache();
  for (const std::size_t size : {0U, 1U, 7U, 5000U, 3U << 20U}) {
    SCOPED_TRACE(size);
    std::mt19937_64 random(size);
    const Bytes stream = fakes::random_bytes(size, random);
    RelayHarness relay(*cache);

    EXPECT_TRUE(relay.migrate(stream) == stream);
    EXPECT_TRUE(relay.source_result);
    EXPECT_TRUE(relay.target_result);
    EXPECT_EQ(relay.source->counters().stream_bytes, size);
    EXPECT_EQ(relay.target->counters().stream_bytes, size);
  }
}

TEST(RelayTest, RefersToPagesThatTheTargetHas) {
  std::mt19937_64 random(1);
  std::vector<Bytes> sent;
  const Bytes stream = fakes::fake_guest_stream(1000, random, &sent);
  const auto cache = make_cache(some_of(sent, [] { return true; }));
  RelayHarness relay(*cache, patient());

  EXPECT_TRUE(relay.migrate(stream) == stream);

  const RelayCounters counters = relay.source->counters();
  EXPECT_EQ(counters.stream_bytes, stream.size());
  EXPECT_EQ(counters.page_refs, sent.size());
  EXPECT_EQ(counters.zero_pages, 1000 - sent.size());
  EXPECT_EQ(counters.pages_resent, 0U);
  EXPECT_LT(counters.wire_bytes, stream.size() / 20);
  EXPECT_EQ(relay.target->counters().page_refs, counters.page_refs);
  EXPECT_LT(relay.target->counters().wire_bytes, stream.size() / 20);
}

/// A guest's pages as QEMU sends them in its first pass, all or the first `sent`, then some again.
class GuestStream {
 public:
  explicit GuestStream(std::size_t count, std::size_t sent = SIZE_MAX) : random_(9) {
    for (std::size_t i = 0; i < count; ++i) {
      pages.push_back(fakes::random_bytes(kPageSize, random_));
    }
    stream_.file_header().configuration("pc-q35-7.2").section_start("ram", 4);
    stream_.ram_sizes(count * kPageSize).ram_block("pc.ram", count * kPageSize);
    stream_.end_of_section().footer().section_part();
    stream_.first_page("pc.ram", 0, view(0));
    for (std::size_t i = 1; i < std::min(count, sent); ++i) send(i);
  }

  void send(std::size_t page) { stream_.page(page * kPageSize, view(page)); }

  Bytes finish() {
    stream_.end_of_section().footer().section_end().end_of_section().footer();
    stream_.devices(fakes::random_bytes(3000, random_));
    return {stream_.view().begin(), stream_.view().end()};
  }

  std::vector<Bytes> pages;

 private:
  PageView view(std::size_t page) const { return std::span(pages[page]).first<kPageSize>(); }

  std::mt19937_64 random_;
  FakeQemuStream stream_;
};

TEST(RelayTest, SendsTheDifferenceToWhatItSentBefore) {
  GuestStream guest(1000);
  for (int pass = 0; pass < 3; ++pass) {
    for (std::size_t i = 0; i < 1000; i += 2) {
      guest.pages[i][static_cast<std::size_t>(pass) + i] ^= std::byte{1};
      guest.send(i);
    }
  }
  const Bytes stream = guest.finish();
  const auto cache = empty_cache();
  RelayHarness relay(*cache, patient());

  EXPECT_TRUE(relay.migrate(stream) == stream);

  const RelayCounters counters = relay.source->counters();
  EXPECT_EQ(counters.page_deltas, 1500U);
  EXPECT_LT(counters.wire_bytes, 1010 * kPageSize);
}

class SeenPasses final : public PassWatch {
 public:
  void first_pass(std::uint64_t bytes_left) override { left.push_back(bytes_left); }
  void further_pass(std::uint64_t bytes) override { further.push_back(bytes); }
  void speed_is_true(bool is_true) override { true_speeds += is_true ? 1 : 0; }
  void delivered(std::uint64_t bytes, std::uint64_t link_bytes) override {
    delivered_bytes += bytes;
    EXPECT_GE(link_bytes, LinkMeter::kWindowMin);
  }
  void out_of_sight() override { ++lost; }

  std::vector<std::uint64_t> left;
  std::vector<std::uint64_t> further;
  int true_speeds = 0;
  std::atomic<std::uint64_t> delivered_bytes{0};
  int lost = 0;
};

TEST(RelayTest, TellsHowQemuGoesThroughTheMemory) {
  GuestStream guest(4, 2);  // QEMU leaves pages out that the guest does not use.
  guest.send(3);
  guest.send(1);
  guest.send(2);
  guest.send(0);
  const auto cache = empty_cache();
  SeenPasses seen;
  RelayHarness relay(*cache, patient(), std::nullopt, &seen);
  const Bytes stream = guest.finish();
  relay.migrate(stream);

  EXPECT_EQ(seen.delivered_bytes, stream.size());
  EXPECT_EQ(seen.left, (std::vector<std::uint64_t>{4 * kPageSize, 3 * kPageSize, kPageSize}));
  EXPECT_EQ(seen.further, (std::vector<std::uint64_t>{4 * kPageSize, 4 * kPageSize}));
  EXPECT_EQ(seen.lost, 1) << "once the devices' state follows";
  EXPECT_EQ(seen.true_speeds, 0);
}

TEST(RelayTest, TellsThatQemuMeasuresRightlyWhereNothingIsFound) {
  constexpr std::size_t kPages = 8 * HitWatch::kPagesMin;
  GuestStream guest(kPages);
  for (std::size_t i = 0; i < kPages; ++i) guest.send(i);
  const Bytes stream = guest.finish();
  const auto cache = empty_cache();
  SeenPasses seen;
  // On a machine that is busy the link is not a fast one, and QEMU's measure not trusted.
  constexpr int kAttempts = 20;
  for (int attempt = 0; attempt < kAttempts && seen.true_speeds == 0; ++attempt) {
    RelayHarness relay(*cache, patient(), std::nullopt, &seen);
    relay.migrate(stream);
  }
  EXPECT_GT(seen.true_speeds, 0);
}

TEST(RelayTest, TellsThatAStreamIsNotUnderstood) {
  std::mt19937_64 random(3);
  const auto cache = empty_cache();
  SeenPasses seen;
  RelayHarness relay(*cache, patient(), std::nullopt, &seen);
  relay.migrate(fakes::random_bytes(100'000, random));

  EXPECT_EQ(seen.lost, 1);
  EXPECT_TRUE(seen.left.empty());
}

TEST(RelayTest, TellsNothingOfAMemoryWhoseSizeIsNotKnown) {
  std::mt19937_64 random(4);
  const auto cache = empty_cache();
  SeenPasses seen;
  RelayHarness relay(*cache, patient(), std::nullopt, &seen);
  relay.migrate(fakes::fake_multifd_stream(100, random, nullptr));

  EXPECT_TRUE(seen.left.empty());
}

TEST(RelayTest, CopiesPagesThatItSentElsewhere) {
  GuestStream guest(600);
  for (std::size_t i = 0; i < 300; ++i) {
    guest.pages[i] = guest.pages[i + 300];
    guest.send(i);
  }
  const Bytes stream = guest.finish();
  const auto cache = empty_cache();
  RelayHarness relay(*cache, patient());

  EXPECT_TRUE(relay.migrate(stream) == stream);

  EXPECT_GT(relay.source->counters().page_refs, 250U);
  EXPECT_LT(relay.source->counters().wire_bytes, 660 * kPageSize);
}

TEST(RelayTest, KeepsNoMoreHistoryThanBothEndsAllow) {
  GuestStream guest(1000);
  for (std::size_t i = 0; i < 1000; ++i) guest.send(i);
  const Bytes stream = guest.finish();
  const auto cache = empty_cache();
  for (const std::uint64_t bytes : {std::uint64_t{0}, std::uint64_t{300'000}}) {
    RelayOptions options = patient();
    options.history_bytes_max = bytes;
    RelayHarness relay(*cache, options);

    EXPECT_TRUE(relay.migrate(stream) == stream);
    EXPECT_EQ(relay.source->counters().page_refs, 0U);
  }
}

TEST(RelayTest, AGuestThatComesHomeCostsNextToNothing) {
  GuestStream guest(4000);
  const auto home = std::make_shared<std::vector<Bytes>>(guest.pages);
  const Bytes stream = guest.finish();
  const auto cache = make_cache(home);
  RelayHarness relay(*cache, patient(), pagecache::SourceId{1});

  EXPECT_TRUE(relay.migrate(stream) == stream);

  EXPECT_EQ(relay.source->counters().page_refs, 4000U);
  EXPECT_EQ(relay.source->counters().pages_resent, 0U);
  EXPECT_LT(relay.source->counters().wire_bytes, stream.size() / 500);
}

TEST(RelayTest, PagesThatChangedAtHomeAreSentAgain) {
  GuestStream guest(1000);
  const auto home = std::make_shared<std::vector<Bytes>>(guest.pages);
  const Bytes stream = guest.finish();
  const auto cache = make_cache(home);
  for (std::size_t i = 0; i < 1000; i += 5) (*home)[i][9] ^= std::byte{1};
  RelayHarness relay(*cache, patient(), pagecache::SourceId{1});

  EXPECT_TRUE(relay.migrate(stream) == stream);
  EXPECT_GE(relay.source->counters().pages_resent, 200U);
}

TEST(RelayTest, ATwinThatLiesInMemoryAlikeIsNoticed) {
  GuestStream guest(10'000);
  const auto twin = std::make_shared<std::vector<Bytes>>(guest.pages);
  const Bytes stream = guest.finish();
  const auto cache = make_cache(twin);
  RelayHarness relay(*cache, patient());

  EXPECT_TRUE(relay.migrate(stream) == stream);

  // Eight bytes a page until it is noticed, then two, which it costs to say where what is.
  EXPECT_LT(relay.source->counters().wire_bytes, 10'000 * 8);
}

TEST(RelayTest, CountsLiteralPages) {
  std::mt19937_64 random(2);
  std::vector<Bytes> sent;
  const Bytes stream = fakes::fake_guest_stream(200, random, &sent);
  const auto cache = empty_cache();
  RelayHarness relay(*cache, patient());

  EXPECT_TRUE(relay.migrate(stream) == stream);

  EXPECT_EQ(relay.source->counters().page_refs, 0U);
  EXPECT_EQ(relay.source->counters().page_literals, sent.size());
}

// QEMU writes something, waits for an answer, and ends its writing anywhere, also within a record.
TEST(RelayTest, SendsOnWhatQemuHasWrittenAndItsAnswer) {
  std::mt19937_64 random(3);
  const Bytes stream = fakes::fake_guest_stream(6, random, nullptr);
  const auto cache = empty_cache();
  RelayHarness relay(*cache);
  relay.start();
  const std::size_t part = stream.size() / 17;
  for (std::size_t at = 0; at < stream.size(); at += part) {
    const auto written = std::span(stream).subspan(at, std::min(part, stream.size() - at));
    ASSERT_TRUE(relay.source_qemu().write_all(written, in_time()));
    ASSERT_EQ(read_exactly(relay.target_qemu(), written.size()),
              Bytes(written.begin(), written.end()));
    const Bytes answer(6, static_cast<std::byte>(at));
    ASSERT_TRUE(relay.target_qemu().write_all(answer, in_time()));
    ASSERT_EQ(read_exactly(relay.source_qemu(), answer.size()), answer);
  }
  EXPECT_FALSE(relay.target->delivered());
  EXPECT_FALSE(relay.source->delivered());

  // As QEMU ends: the target says that it is done and closes, then the source closes.
  ASSERT_TRUE(relay.target_qemu().finish_writing());
  EXPECT_TRUE(read_to_end(relay.source_qemu()).empty());
  ASSERT_TRUE(relay.source_qemu().finish_writing());
  relay.join();

  EXPECT_TRUE(relay.source_result);
  EXPECT_TRUE(relay.target_result);
  EXPECT_TRUE(relay.target->delivered());
}

TEST(RelayTest, StopsAtAnyTime) {
  std::mt19937_64 random(4);
  std::vector<Bytes> sent;
  const Bytes stream = fakes::fake_guest_stream(600, random, &sent);
  const auto cache = make_cache(some_of(sent, [&] { return random() % 2 == 0; }));
  for (std::size_t at = 0; at < stream.size(); at += stream.size() / 25) {
    SCOPED_TRACE(at);
    RelayHarness relay(*cache);
    relay.start();
    // QEMU's socket takes `at` bytes, then one of the relays is stopped, then QEMU goes on.
    std::thread sender([&] {
      if (!relay.source_qemu().write_all(std::span(stream).first(at), in_time())) return;
      at % 2 == 0 ? relay.source->stop() : relay.target->stop();
      (void)relay.source_qemu().write_all(std::span(stream).subspan(at), in_time());
    });

    const Bytes got = read_to_end(relay.target_qemu());
    relay.join();
    sender.join();

    EXPECT_TRUE(std::equal(got.begin(), got.end(), stream.begin()));
    EXPECT_EQ(relay.source_result.error().code(), Errc::kUnavailable);
    EXPECT_EQ(relay.target_result.error().code(), Errc::kUnavailable);
    EXPECT_FALSE(relay.target->delivered());
  }
}

TEST(RelayTest, StopsBeforeItBegins) {
  const auto cache = empty_cache();
  RelayHarness relay(*cache);
  relay.source->stop();
  relay.target->stop();
  relay.start();
  relay.join();

  EXPECT_EQ(relay.source_result.error().code(), Errc::kUnavailable);
  EXPECT_EQ(relay.target_result.error().code(), Errc::kUnavailable);
}

TEST(RelayTest, RefusesOptionsOutOfRange) {
  const auto cache = empty_cache();
  const auto ends = fakes::FakeByteStream::connect();
  const auto refused = [&](const RelayOptions& options) {
    const RelayEnds both{*ends.first, *ends.second};
    const auto source = RelaySource::create(options, both, test_domain, kSecret);
    const auto target = RelayTarget::create(options, both, *cache, test_domain, kSecret);
    return !source && source.error().code() == Errc::kInvalid && !target &&
           target.error().code() == Errc::kInvalid;
  };
  EXPECT_TRUE(refused({.batches_in_flight_max = 0}));
  EXPECT_TRUE(refused({.batches_in_flight_max = kBatchesInFlightMax + 1}));
  EXPECT_TRUE(refused({.wire_bytes_in_flight_max = 0}));
  EXPECT_TRUE(refused({.flush_after = std::chrono::microseconds(0)}));
  EXPECT_TRUE(refused({.stall_max = std::chrono::milliseconds(-1)}));
  EXPECT_TRUE(refused({.zstd_level_max = 0}));
  EXPECT_TRUE(refused({.zstd_level_max = 20}));
  EXPECT_TRUE(refused({.workers = 65}));
  EXPECT_FALSE(refused({}));
}

TEST(SessionSecretTest, GivesEachUseAKeyOfItsOwn) {
  const SessionSecret other{{std::byte{14}}};

  EXPECT_NE(stream_mac_key(kSecret).bytes, tls_pre_shared_key(kSecret).bytes);
  EXPECT_NE(stream_mac_key(kSecret).bytes, stream_mac_key(other).bytes);
  EXPECT_NE(stream_mac_key(kSecret).bytes, kSecret.bytes);
}

}  // namespace
}  // namespace samepage::migrator
