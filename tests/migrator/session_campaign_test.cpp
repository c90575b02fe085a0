// The promise under test: a bit that is flipped, a wire that is cut and one that stalls, at any
// byte of a migration over real TLS and through the real relay, and a page cache that lies, lose no
// guest, run none twice and hand QEMU no wrong byte (the fake QEMU looks at each).
//
// SAMEPAGE_FAULT_POINTS=50 tries so many random bytes of each kind instead of a few;
// SAMEPAGE_SEED=N repeats a run, whose seed every run prints.

#include <cstdlib>
#include <iostream>
#include <random>

#include <gtest/gtest.h>

#include "migrator/relay_source.h"
#include "migrator/relay_target.h"
#include "tests/fakes/fake_qemu_stream.h"
#include "tests/migrator/relay_harness.h"
#include "tests/migrator/session_harness.h"

namespace samepage::migrator {
namespace {

using Damage = SessionWire::Damage;
using std::chrono::milliseconds;

constexpr int kPoints = 4;

std::uint64_t number_from(const char* variable, std::uint64_t otherwise) {
  const char* const text = std::getenv(variable);
  return text == nullptr ? otherwise : std::strtoull(text, nullptr, 10);
}

RelayOptions impatient() {
  RelayOptions options;
  options.stall_max = milliseconds(400);
  options.quiet_max = milliseconds(1'500);
  return options;
}

template <class Relay, class... Cache>
MakeRelay real_relay(const RelayOptions& options, Cache&... cache) {
  return [options, &cache...](RelayEnds ends) -> Result<std::unique_ptr<RelayHalf>> {
    auto relay = Relay::create(options, ends, cache..., test_domain, kSecret);
    if (!relay) return tl::unexpected(std::move(relay).error());
    return std::make_unique<RelayHalfOf<Relay>>(*std::move(relay));
  };
}

class SessionCampaignTest : public ::testing::Test {
 protected:
  SessionCampaignTest()
      : seed_(number_from("SAMEPAGE_SEED", std::random_device()())), random_(seed_) {
    std::cout << "SAMEPAGE_SEED=" << seed_ << "\n";
  }

  static SessionHarness::Options real(pagecache::PageCache& cache, const RelayOptions& relay) {
    SessionHarness::Options options;
    options.source_relay = real_relay<RelaySource>(relay);
    options.target_relay = real_relay<RelayTarget>(relay, cache);
    return options;
  }

  /// Short waits, for faults that only waiting shows.
  static SessionHarness::Options hurried(pagecache::PageCache& cache) {
    SessionHarness::Options options = real(cache, impatient());
    options.source = [](SourceOptions& source) {
      source.stop_max = milliseconds(300);
      source.answer_max = milliseconds(700);
      source.connect_max = milliseconds(700);
    };
    options.target = [](TargetOptions& target) {
      target.handshake_max = milliseconds(700);
      target.source_max = milliseconds(1'500);
      target.total_max = milliseconds(4'000);
      target.qemu_max = milliseconds(700);
      target.deliver_max = milliseconds(700);
    };
    return options;
  }

  /// How much crosses when nothing is damaged.
  std::uint64_t whole() {
    const auto cache = empty_cache();
    SessionHarness two(real(*cache, {}));
    two.run();
    EXPECT_EQ(two.source_outcome.runs_on, Side::kTarget)
        << two.source_outcome.error.value_or(Error(Errc::kIo, "no error")).message();
    return two.wire->bytes();
  }

  void strike(Damage damage) {
    const std::uint64_t bytes = whole();
    const auto points = number_from("SAMEPAGE_FAULT_POINTS", kPoints);
    std::map<Side, int> ends;
    for (std::uint64_t point = 0; point < points; ++point) {
      const std::uint64_t at = random_() % bytes;
      SCOPED_TRACE("at byte " + std::to_string(at) + " of " + std::to_string(bytes));
      const auto cache = empty_cache();
      SessionHarness two(hurried(*cache));
      two.wire->damage(damage, at);
      two.run();
      if (two.source_outcome.runs_on != Side::kTarget) {
        EXPECT_TRUE(two.source_outcome.error) << "it does not say why";
      }
      ++ends[two.source_outcome.runs_on];
      two.expect_runs_once();
    }
    std::cout << points << " points: " << ends[Side::kSource] << " stayed, " << ends[Side::kTarget]
              << " moved, " << ends[Side::kUnknown] << " were settled by the placer\n";
  }

  const std::uint64_t seed_;
  std::mt19937_64 random_;
};

TEST_F(SessionCampaignTest, AFlippedBitAnywhere) {
  strike(Damage::kFlip);
}

TEST_F(SessionCampaignTest, ACutAnywhere) {
  strike(Damage::kCut);
}

TEST_F(SessionCampaignTest, AStallAnywhere) {
  strike(Damage::kStall);
}

TEST_F(SessionCampaignTest, ALyingCacheAnywhere) {
  const auto points = number_from("SAMEPAGE_FAULT_POINTS", kPoints);
  std::uint64_t resent = 0;
  for (std::uint64_t point = 0; point < points; ++point) {
    HostPages pages = std::make_shared<std::vector<Bytes>>();
    std::mt19937_64 contents(seed_ + point);
    const Bytes stream = fakes::fake_guest_stream(400, contents, pages.get());
    const auto cache = make_cache(pages);
    // Some pages are others by now, some are torn, some are gone.
    for (std::size_t lies = 1 + random_() % pages->size(); lies > 0; --lies) {
      Bytes& page = (*pages)[random_() % pages->size()];
      page[random_() % kPageSize] ^= static_cast<std::byte>(1 + random_() % 255);
    }
    RelayHarness relay(*cache);
    EXPECT_TRUE(relay.migrate(stream) == stream) << "point " << point;
    EXPECT_TRUE(relay.target->delivered());
    resent += relay.source->counters().pages_resent;
  }
  EXPECT_GT(resent, 0U);
}

}  // namespace
}  // namespace samepage::migrator
