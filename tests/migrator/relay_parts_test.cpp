// The promises under test are those of the relays' small parts: what may be under way, how hard to
// compress, when to look pages up, how large batches are, and what lies where in the stream.

#include <filesystem>
#include <fstream>
#include <random>
#include <stop_token>
#include <thread>

#include <gtest/gtest.h>
#include <sys/mman.h>

#include "migrator/arrivals.h"
#include "migrator/batch_pace.h"
#include "migrator/compression_choice.h"
#include "migrator/emulation.h"
#include "migrator/hit_watch.h"
#include "migrator/link_meter.h"
#include "migrator/ordered_stage.h"
#include "migrator/relay.h"
#include "migrator/sent_places.h"
#include "migrator/stream_history.h"
#include "migrator/stream_slab.h"
#include "migrator/stretch_rebuilder.h"
#include "tests/core/temporary_folder.h"

namespace samepage::migrator {
namespace {

using std::chrono::milliseconds;

LinkMeter::Time at_ms(double ms) {
  return LinkMeter::Time(std::chrono::duration_cast<LinkMeter::Time::duration>(
      std::chrono::duration<double, std::milli>(ms)));
}

/// Sends batches one behind the other over a link of this rate and delay.
LinkMeter measured(double bytes_per_ms, double delay_ms) {
  LinkMeter meter;
  constexpr std::size_t kBytes = 100'000;
  meter.sent(kBytes, at_ms(0));
  meter.arrived(at_ms(delay_ms + kBytes / bytes_per_ms));
  double free_at = 1000;
  for (int i = 0; i < 100; ++i) {
    meter.sent(kBytes, at_ms(1000));
    meter.sent(kBytes, at_ms(1000));
    free_at += kBytes / bytes_per_ms;
    meter.arrived(at_ms(free_at + delay_ms));
    free_at += kBytes / bytes_per_ms;
    meter.arrived(at_ms(free_at + delay_ms));
  }
  return meter;
}

TEST(LinkMeterTest, LetsLittleMoreBeUnderWayThanTheLinkNeeds) {
  EXPECT_EQ(LinkMeter().window(), LinkMeter::kWindowFirst);

  const LinkMeter fast = measured(125'000, 1);
  EXPECT_NEAR(fast.bytes_per_second(), 125e6, 10e6);
  EXPECT_NEAR(static_cast<double>(fast.window()), 125e6 * 0.022, 0.5e6);

  const LinkMeter slow = measured(1'000, 1);
  EXPECT_NEAR(slow.bytes_per_second(), 1e6, 0.1e6);
  EXPECT_EQ(slow.window(), LinkMeter::kWindowMin);

  const LinkMeter far = measured(125'000, 100);
  EXPECT_GT(far.window(), 12U << 20U);
}

TEST(LinkMeterTest, SmallBatchesTellNothingOfTheRate) {
  LinkMeter meter;
  for (int i = 0; i < 50; ++i) {
    meter.sent(200, at_ms(10 * i));
    meter.arrived(at_ms(10 * i + 5));
  }
  EXPECT_EQ(meter.bytes_per_second(), 0);
  EXPECT_EQ(meter.window(), LinkMeter::kWindowFirst);
}

TEST(BatchPaceTest, SizesBatchesByWhatTheyTakeTheLink) {
  const auto size_at = [](double bytes_per_second, std::size_t wire_bytes) {
    BatchPace pace;
    EXPECT_EQ(pace.batch_bytes(), kBatchStreamBytesMax);
    for (int i = 0; i < 20; ++i) pace.sent(1'000'000, wire_bytes, bytes_per_second);
    return pace.batch_bytes();
  };
  EXPECT_EQ(size_at(0, 500'000), kBatchStreamBytesMax);
  EXPECT_EQ(size_at(1e6, 1'000'000), BatchPace::kBytesMin);
  EXPECT_NEAR(static_cast<double>(size_at(25e6, 200'000)), 625'000, 1000);
  EXPECT_EQ(size_at(25e6, 10'000), kBatchStreamBytesMax);
}

/// Shows a choice batches of a MiB, each of which takes so long.
class ShownBatches {
 public:
  explicit ShownBatches(CompressionChoice& choice) : choice_(choice) {}

  bool little_found = true;

  void show(int count, std::chrono::milliseconds each, bool encoders_late, bool link_late) {
    for (int i = 0; i < count; ++i) {
      now_ += each;
      const int level = choice_.level();
      choice_.saw({.level = level,
                   .literal_bytes = 1U << 20U,
                   .paid = level != kPackNothing,
                   .encoders_late = encoders_late,
                   .link_late = link_late,
                   .little_found = little_found},
                  now_);
    }
  }

 private:
  CompressionChoice& choice_;
  CompressionChoice::Time now_{std::chrono::hours(1)};
};

constexpr std::chrono::milliseconds kFast{1};
constexpr std::chrono::milliseconds kSlow{10};

TEST(CompressionChoiceTest, FollowsWhatIsLate) {
  CompressionChoice choice(6);
  ShownBatches batches(choice);
  EXPECT_EQ(choice.level(), 1);
  batches.show(5, kFast, false, true);
  EXPECT_EQ(choice.level(), 6);
  batches.show(100, kFast, false, false);
  EXPECT_EQ(choice.level(), 6);
  batches.show(5, kFast, true, false);
  EXPECT_EQ(choice.level(), 1);
  batches.show(5, kFast, true, false);
  EXPECT_EQ(choice.level(), -3);
}

TEST(CompressionChoiceTest, IsOffWhileMoreComesThroughSo) {
  CompressionChoice choice(6);
  ShownBatches batches(choice);
  batches.show(9, kSlow, true, false);
  EXPECT_FALSE(choice.is_off());
  batches.show(1, kSlow, true, false);
  EXPECT_TRUE(choice.is_off());
  EXPECT_EQ(choice.level(), kPackNothing);
  batches.show(100, kFast, false, true);
  EXPECT_TRUE(choice.is_off());
  batches.show(18, 2 * kSlow, false, true);
  EXPECT_FALSE(choice.is_off());
}

TEST(CompressionChoiceTest, NoticesWhatIsLateMostOfTheTime) {
  CompressionChoice choice(6);
  ShownBatches batches(choice);
  batches.little_found = false;
  for (int i = 0; i < 12; ++i) {
    batches.show(2, kSlow, true, false);
    batches.show(1, kSlow, false, false);
  }
  EXPECT_EQ(choice.level(), -3);
  for (int i = 0; i < 100; ++i) {
    batches.show(1, kSlow, true, false);
    batches.show(2, kSlow, false, false);
  }
  EXPECT_EQ(choice.level(), -3);
}

TEST(CompressionChoiceTest, StaysOnWhereLookingUpIsWhatTakesTime) {
  CompressionChoice choice(6);
  ShownBatches batches(choice);
  batches.little_found = false;
  batches.show(1000, kSlow, true, false);
  EXPECT_EQ(choice.level(), -3);
}

TEST(CompressionChoiceTest, DoesNotTryAgainSoonWhatWasSlower) {
  CompressionChoice choice(6);
  ShownBatches batches(choice);
  batches.show(10, kFast, true, false);
  batches.show(9, kSlow, false, true);
  EXPECT_EQ(choice.level(), -3);
  batches.show(256, kFast, true, false);
  EXPECT_EQ(choice.level(), -3);
  batches.show(1, kFast, true, false);
  EXPECT_TRUE(choice.is_off());
}

TEST(CompressionChoiceTest, TriesRarelyWhatDoesNotPay) {
  CompressionChoice choice(3);
  int tried = 0;
  for (int i = 0; i < 160; ++i) {
    const int level = choice.level();
    if (level != kPackNothing) ++tried;
    choice.saw({.level = level, .literal_bytes = 1U << 20U}, {});
  }
  EXPECT_LT(tried, 16);
  EXPECT_GT(tried, 8);
  while (choice.level() == kPackNothing) continue;
  choice.saw({.level = 1, .literal_bytes = 1U << 20U, .paid = true}, {});
  EXPECT_EQ(choice.level(), 1);
}

TEST(HitWatchTest, LooksRarelyWhereNothingIsFoundUntilSomethingIs) {
  HitWatch watch;
  for (int i = 0; i < 8; ++i) {
    EXPECT_TRUE(watch.look());
    watch.saw(256, 1);
  }
  int looks = 0;
  for (int i = 0; i < 160; ++i) looks += watch.look() ? 1 : 0;
  EXPECT_EQ(looks, 10);

  watch.saw(256, 200);
  EXPECT_TRUE(watch.look());
  EXPECT_TRUE(watch.look());
}

StreamBytes stretch_of(std::size_t size, std::byte fill) {
  auto slab = std::make_shared<Slab>(size);
  std::ranges::fill(slab->bytes(), fill);
  return {.slab = slab, .bytes = slab->bytes()};
}

TEST(EmulationTest, IsSeenFromTheNamesOfTheThreads) {
  const TemporaryFolder proc;
  const auto qemu = [&](const std::string& pid, const std::string& thread) {
    const auto task = std::filesystem::path(proc.file(pid)) / "task";
    std::filesystem::create_directories(task / "1");
    std::filesystem::create_directories(task / "2");
    std::ofstream(task / "1" / "comm") << "qemu-system-x86\n";
    std::ofstream(task / "2" / "comm") << thread << "\n";
  };
  qemu("11", "CPU 0/TCG");
  qemu("12", "CPU 0/KVM");
  EXPECT_TRUE(is_emulated(11, proc.file("")));
  EXPECT_FALSE(is_emulated(12, proc.file("")));
  EXPECT_FALSE(is_emulated(13, proc.file("")));
}

TEST(SlabPoolTest, NoSlabRemembersWhatWasInIt) {
  {
    const auto slab = SlabPool::take();
    std::ranges::fill(slab->bytes(), std::byte{7});
  }
  const auto slab = SlabPool::take();
  EXPECT_TRUE(std::ranges::all_of(slab->bytes(), [](std::byte b) { return b == std::byte{0}; }));
}

TEST(SlabPoolTest, WarmsUpUntilItIsStopped) {
  std::stop_source stop;
  SlabPool::warm_up(2, stop.get_token());
  const auto slab = SlabPool::take();
  // Resident, though nobody has used it.
  std::vector<unsigned char> resident(slab->bytes().size() / kPageSize);
  ASSERT_EQ(::mincore(slab->bytes().data(), slab->bytes().size(), resident.data()), 0);
  EXPECT_TRUE(std::ranges::all_of(resident, [](unsigned char page) { return (page & 1U) != 0; }));

  stop.request_stop();
  SlabPool::warm_up(std::size_t{1} << 40U, stop.get_token());
}

TEST(StreamHistoryTest, ReturnsPagesWithinReach) {
  StreamHistory history(3 * kPageSize);
  for (int i = 0; i < 8; ++i) history.add(stretch_of(kPageSize + 8, std::byte(i)));
  const std::uint64_t end = 8 * (kPageSize + 8);

  EXPECT_EQ(history.find(end - kPageSize).value().bytes[0], std::byte{7});
  EXPECT_EQ(history.find(end - kPageSize - 3).value().bytes[0], std::byte{7});
  EXPECT_EQ(history.find(5 * (kPageSize + 8)).value().bytes[0], std::byte{5});
  EXPECT_FALSE(history.find(5 * (kPageSize + 8) - 1));  // Not within one stretch.
  EXPECT_FALSE(history.find(0));                        // Forgotten.

  history.skip(kPageSize);
  EXPECT_FALSE(history.find(end));
  EXPECT_EQ(history.find(end - kPageSize).value().bytes[0], std::byte{7});
  history.skip(4 * kPageSize);
  history.skip(kPageSize);
  EXPECT_FALSE(history.find(end - kPageSize));
}

TEST(StreamHistoryTest, WaitsUntilItHasComeThatFar) {
  StreamHistory history(1U << 20U);
  std::thread later([&] { history.add(stretch_of(kPageSize, std::byte{1})); });
  EXPECT_EQ(history.find(0).value().bytes[9], std::byte{1});
  later.join();
  std::thread end([&] { history.close(); });
  EXPECT_FALSE(history.find(kPageSize));
  end.join();
}

StreamToken page_token(std::uint64_t page, std::uint32_t block = 0) {
  StreamToken token;
  token.kind = StreamToken::Kind::kPage;
  token.header = page * kPageSize | 8U;
  token.block = block;
  return token;
}

TEST(LatestVersionsTest, KnowsWhereAPageWasSentBefore) {
  LatestVersions versions(1'000'000);

  EXPECT_EQ(versions.note(page_token(5), 100), kNowhere);
  EXPECT_EQ(versions.note(page_token(5, 1), 200), kNowhere);
  EXPECT_EQ(versions.note(page_token(5), 300'000), 100U);
  EXPECT_EQ(versions.note(page_token(5), 1'300'000), 300'000U);
  EXPECT_EQ(versions.note(page_token(5), 2'300'001), kNowhere);
}

TEST(SentContentsTest, FindsWhatWasSentInFrontOfTheBatch) {
  SentContents contents(1'000'000);
  std::array pages{SentContents::Page{.hash = {1}, .place = 10'000},
                   SentContents::Page{.hash = {2}, .place = 20'000},
                   SentContents::Page{.hash = {1}, .place = 30'000}};
  contents.note(pages, 5'000);
  for (const auto& page : pages) EXPECT_EQ(page.before, kNowhere);

  std::array again{SentContents::Page{.hash = {1}, .place = 50'000},
                   SentContents::Page{.hash = {3}, .place = 60'000}};
  contents.note(again, 45'000);
  EXPECT_EQ(again[0].before, 30'000U);
  EXPECT_EQ(again[1].before, kNowhere);

  std::array late{SentContents::Page{.hash = {2}, .place = 2'000'000}};
  contents.note(late, 1'999'000);
  EXPECT_EQ(late[0].before, kNowhere);
}

TEST(OrderedStageTest, JobsComeOutInTheirOrder) {
  OrderedStage<int, int> stage(5);
  std::vector<std::jthread> workers;
  for (int i = 0; i < 3; ++i) {
    workers.emplace_back([&] {
      while (auto ticket = stage.take()) stage.finish(ticket->number, 2 * ticket->job);
    });
  }
  std::jthread source([&] {
    for (int i = 0; i < 5000; ++i) ASSERT_TRUE(stage.push(i));
    stage.end_input();
  });

  for (int i = 0; i < 5000; ++i) ASSERT_EQ(stage.pop(), 2 * i);
  EXPECT_EQ(stage.pop(), std::nullopt);
}

TEST(OrderedStageTest, ClosingEndsEveryWait) {
  OrderedStage<int, int> stage(1);
  ASSERT_TRUE(stage.push(1));
  EXPECT_EQ(stage.load().waiting, 1U);
  std::jthread pushing([&] { EXPECT_FALSE(stage.push(2)); });
  std::jthread popping([&] { EXPECT_EQ(stage.pop(), std::nullopt); });
  stage.close();

  EXPECT_FALSE(stage.take());
  stage.finish(0, 1);
}

std::shared_ptr<Arrival> arrival(std::uint64_t sequence) {
  auto made = std::make_shared<Arrival>();
  made->header.sequence = sequence;
  return made;
}

TEST(ArrivalsTest, AreWrittenInOrderOnceComplete) {
  Arrivals arrivals;
  for (std::uint64_t i = 0; i < 3; ++i) ASSERT_TRUE(arrivals.add(arrival(i)));
  const auto first = arrivals.take();
  const auto second = arrivals.take();
  arrivals.complete(*second);
  arrivals.ask(*first);

  EXPECT_EQ(arrivals.pop(milliseconds(5)).error().code(), Errc::kTimedOut);
  EXPECT_EQ(arrivals.asked(1).error().code(), Errc::kCorrupt);
  EXPECT_EQ(arrivals.asked(7).error().code(), Errc::kCorrupt);
  EXPECT_EQ(arrivals.asked(0).value(), first);
  arrivals.complete(*first);
  EXPECT_EQ(arrivals.pop(milliseconds(5)).value(), first);
  EXPECT_EQ(arrivals.pop(milliseconds(5)).value(), second);
  arrivals.complete(*arrivals.take());
  arrivals.end_input();
  EXPECT_EQ(arrivals.pop(milliseconds(5)).value()->header.sequence, 2U);
  EXPECT_EQ(arrivals.pop(milliseconds(5)).value(), nullptr);
  EXPECT_EQ(arrivals.take(), nullptr);
}

TEST(ArrivalsTest, AreBoundedAndOweNoPagesForEver) {
  Arrivals arrivals;
  for (std::uint64_t i = 0; i < kBatchesInFlightMax; ++i) {
    ASSERT_TRUE(arrivals.add(arrival(i)));
  }
  EXPECT_EQ(arrivals.add(arrival(kBatchesInFlightMax)).error().code(), Errc::kCorrupt);

  arrivals.ask(*arrivals.take());
  arrivals.end_pages();
  EXPECT_EQ(arrivals.pop(std::chrono::hours(1)).error().code(), Errc::kUnavailable);
}

pagecache::WantedPage found(std::uint32_t source, std::uint64_t page, std::uint64_t number) {
  static std::array<std::byte, kPageSize> buffer;
  return {
      .hash = {}, .number = number, .to = buffer, .found = true, .source = {source}, .page = page};
}

TEST(BaseChoiceTest, ChoosesWhatLiesInMemoryAlike) {
  BaseChoice choice(std::nullopt);
  BaseChoice scattered(std::nullopt);
  bool chosen = false;
  for (std::uint64_t i = 0; i < BaseChoice::kPagesMin; ++i) {
    const bool alike = i % 10 < 7;
    const std::array page{found(alike ? 3 : 4, i, i)};
    chosen = choice.saw(page);
    const std::array elsewhere{found(3, alike ? i + 1 : i, i)};
    EXPECT_FALSE(scattered.saw(elsewhere));
  }
  EXPECT_TRUE(chosen);
  EXPECT_EQ(choice.chosen(), pagecache::SourceId{3});
  EXPECT_EQ(scattered.chosen(), std::nullopt);
  EXPECT_EQ(BaseChoice(pagecache::SourceId{9}).chosen(), pagecache::SourceId{9});
}

}  // namespace
}  // namespace samepage::migrator
