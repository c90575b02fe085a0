// The promise under test: a reader learns of the ring, of hot extents and of neighbours when they
// change, keeps what it knows while its agent is away, and its reads are told.
#include "imagestore/store_scout.h"

#include <gtest/gtest.h>

#include "core/mutex.h"
#include "tests/imagestore/store_harness.h"

namespace samepage::imagestore {
namespace {

/// What the scripted agent says and was told.
struct Script {
  Mutex mutex;
  bool is_away GUARDED_BY(mutex) = false;
  bus::StoreRing ring GUARDED_BY(mutex);
  bus::WarmHosts warm GUARDED_BY(mutex);
  std::vector<bus::StoreRequest::TellReads> told GUARDED_BY(mutex);
  int rounds GUARDED_BY(mutex) = 0;
};

class ScriptedControl final : public StoreControl {
 public:
  explicit ScriptedControl(Script& script) : script_(script) {}

  Result<StoreAnswer> call(const bus::StoreRequest& request, Deadline) override {
    const MutexLock lock(script_.mutex);
    if (request.has_ask_ring()) ++script_.rounds;
    if (script_.is_away) return fail(Errc::kUnavailable, "away");
    StoreAnswer answer;
    if (request.has_ask_ring()) *answer.reply.mutable_ring() = script_.ring;
    if (request.has_ask_warm()) *answer.reply.mutable_warm() = script_.warm;
    if (request.has_tell_reads()) script_.told.push_back(request.tell_reads());
    return answer;
  }

 private:
  Script& script_;
};

class StoreScoutTest : public ::testing::Test {
 protected:
  StoreScoutTest() {
    const MutexLock lock(script_.mutex);
    script_.ring = Ring().joined({.node = "a", .weight = 1, .host = "a", .rack = ""})->to_message();
    script_.ring.add_hosts("a");
    script_.warm.add_hosts("n");
  }

  void start() {
    scout_ = std::make_unique<StoreScout>(
        StoreScout::Options{.version = version_,
                            .ring_interval = std::chrono::milliseconds(2),
                            .warm_interval = std::chrono::milliseconds(4)},
        std::make_unique<ScriptedControl>(script_));
  }

  /// The newest news, once they are as wanted.
  template <class Wanted>
  StoreScout::News wait_for(Wanted wanted) {
    StoreScout::News news;
    const Deadline give_up = soon();
    while (std::chrono::steady_clock::now() < give_up) {
      if (auto fresh = scout_->take_news()) news = *std::move(fresh);
      if (wanted(news)) return news;
      std::this_thread::yield();
    }
    ADD_FAILURE() << "the news did not come";
    return news;
  }

  void wait_rounds(int count) {
    const auto rounds = [&] {
      const MutexLock lock(script_.mutex);
      return script_.rounds;
    };
    const int until = rounds() + count;
    const Deadline give_up = soon();
    while (rounds() < until) ASSERT_LT(std::chrono::steady_clock::now(), give_up);
  }

  const VersionId version_ = PageDigest{.bytes = {std::byte{7}}};
  const ObjectName hot_ = PageDigest{.bytes = {std::byte{9}}};
  Script script_;
  std::unique_ptr<StoreScout> scout_;
};

TEST_F(StoreScoutTest, BringsTheRingAndNeighboursAndTheirChanges) {
  start();
  const auto first = wait_for(
      [](const auto& news) { return news.ring.version() == 1 && !news.neighbours.empty(); });
  EXPECT_EQ(first.own_node, "a");
  EXPECT_EQ(first.neighbours, std::vector<std::string>{"n"});
  EXPECT_TRUE(first.hot.empty());
  wait_rounds(3);
  EXPECT_FALSE(scout_->take_news()) << "nothing is new";

  {
    const MutexLock lock(script_.mutex);
    script_.ring.add_hot(hot_.bytes.data(), hot_.bytes.size());
    script_.warm.add_hosts("m");
  }
  const auto second =
      wait_for([](const auto& news) { return !news.hot.empty() && news.neighbours.size() == 2; });
  EXPECT_TRUE(second.hot.contains(hot_));
  EXPECT_EQ(second.ring.members().size(), 1U);
}

TEST_F(StoreScoutTest, KeepsWhatItKnowsWhileTheAgentIsAway) {
  start();
  wait_for([](const auto& news) { return news.ring.version() == 1 && !news.neighbours.empty(); });
  {
    const MutexLock lock(script_.mutex);
    script_.is_away = true;
  }
  wait_rounds(3);
  EXPECT_FALSE(scout_->take_news());
  {
    const MutexLock lock(script_.mutex);
    script_.is_away = false;
    script_.ring = bus::StoreRing();
    script_.ring.set_version(2);
  }
  EXPECT_TRUE(
      wait_for([](const auto& news) { return news.ring.version() == 2; }).ring.members().empty());
}

TEST_F(StoreScoutTest, LeavesOutARingThatCannotBe) {
  {
    const MutexLock lock(script_.mutex);
    script_.ring.set_slots("nonsense");
    script_.warm.clear_hosts();
  }
  start();
  wait_rounds(3);
  EXPECT_FALSE(scout_->take_news());
}

TEST_F(StoreScoutTest, TellsWhatWasRead) {
  start();
  scout_->tell({{hot_, 12}});
  const Deadline give_up = soon();
  const auto told = [&] {
    const MutexLock lock(script_.mutex);
    return script_.told;
  };
  while (told().empty()) ASSERT_LT(std::chrono::steady_clock::now(), give_up);
  ASSERT_EQ(told().size(), 1U);
  EXPECT_EQ(told()[0].version(), to_hex(version_));
  ASSERT_EQ(told()[0].hot_size(), 1);
  EXPECT_EQ(told()[0].hot(0).reads(), 12U);
}

}  // namespace
}  // namespace samepage::imagestore
