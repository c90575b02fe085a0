// The promise under test: moves overtake each other only where no host ever holds more than it
// would if they were made one by one, and never beyond the limits.

#include "placer/departures.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "placer/packing/random.h"

namespace samepage::placer {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

MoveRecord move(const std::string& vm, const std::string& source, const std::string& target,
                MoveState state = MoveState::kPlanned) {
  MoveRecord record;
  record.move.vm = VmId{vm};
  record.move.name = vm;
  record.move.source = source;
  record.move.target = target;
  record.state = state;
  return record;
}

constexpr MoveLimits kMany{.at_once = 10, .per_host = 10, .per_link = 10};

TEST(Departures, OneByOneIsTheDefault) {
  EXPECT_THAT(departures({move("a", "h1", "h2"), move("b", "h3", "h4")}, {}), ElementsAre(0));
  EXPECT_THAT(departures({move("a", "h1", "h2", MoveState::kRunning), move("b", "h3", "h4")}, {}),
              IsEmpty());
}

TEST(Departures, KeepToTheLimitsOfHostsAndLinks) {
  const std::vector<MoveRecord> moves{move("a", "h1", "h2"), move("b", "h1", "h3"),
                                      move("c", "h1", "h2"), move("d", "h4", "h5")};
  EXPECT_THAT(departures(moves, {.at_once = 10, .per_host = 1, .per_link = 10}), ElementsAre(0, 3));
  EXPECT_THAT(departures(moves, {.at_once = 10, .per_host = 10, .per_link = 1}),
              ElementsAre(0, 1, 3));
  EXPECT_THAT(departures(moves, {.at_once = 2, .per_host = 10, .per_link = 10}), ElementsAre(0, 1));
}

TEST(Departures, ALinkIsTheSameBothWays) {
  EXPECT_THAT(departures({move("a", "h1", "h2"), move("b", "h3", "h1"), move("c", "h3", "h1")},
                         {.at_once = 10, .per_host = 10, .per_link = 1}),
              ElementsAre(0));  // And b goes to where a leaves.
  EXPECT_THAT(departures({move("a", "h1", "h2", MoveState::kDone), move("b", "h3", "h1"),
                          move("c", "h1", "h3")},
                         {.at_once = 10, .per_host = 10, .per_link = 1}),
              ElementsAre(1));
}

TEST(Departures, WaitForRoomThatEarlierMovesMake) {
  EXPECT_THAT(departures({move("a", "h1", "h2"), move("b", "h3", "h1")}, kMany), ElementsAre(0));
  EXPECT_THAT(
      departures({move("a", "h1", "h2", MoveState::kRunning), move("b", "h3", "h1")}, kMany),
      IsEmpty());
  EXPECT_THAT(departures({move("a", "h1", "h2", MoveState::kDone), move("b", "h3", "h1")}, kMany),
              ElementsAre(1));
}

TEST(Departures, KeepTheOrderOfOneVm) {
  EXPECT_THAT(departures({move("a", "h1", "h2"), move("a", "h2", "h3")}, kMany), ElementsAre(0));
}

// Moves of random plans start and end in random order; every host's VMs are compared with those
// that it holds in the plan's own order.
TEST(Departures, NoHostEverHoldsMoreThanOneByOne) {
  for (std::uint64_t seed = 0; seed < 200; ++seed) {
    Random random(seed);
    constexpr std::uint32_t kHosts = 5;
    std::map<std::string, std::string> at;
    for (int vm = 0; vm < 8; ++vm)
      at["v" + std::to_string(vm)] = "h" + std::to_string(random.below(kHosts));
    std::map<std::string, int> now;  // VMs on a host, or on their way to it.
    for (const auto& [vm, host] : at) ++now[host];
    std::map<std::string, int> most = now;  // At any time of the plan in order.
    std::map<std::string, int> in_order = now;
    std::vector<MoveRecord> moves;
    for (int i = 0; i < 20; ++i) {
      const std::string vm = "v" + std::to_string(random.below(8));
      const std::string target = "h" + std::to_string(random.below(kHosts));
      if (at[vm] == target) continue;
      moves.push_back(move(vm, at[vm], target));
      most[target] = std::max(most[target], ++in_order[target]);
      --in_order[at[vm]];
      at[vm] = target;
    }
    std::vector<std::size_t> running;
    std::size_t ended = 0;
    while (ended < moves.size()) {
      for (const std::size_t next : departures(moves, kMany)) {
        moves[next].state = MoveState::kRunning;
        running.push_back(next);
        const std::string& target = moves[next].move.target;
        ASSERT_LE(++now[target], most[target]) << "seed " << seed;
      }
      ASSERT_FALSE(running.empty()) << "seed " << seed;
      const std::uint32_t chosen = random.below(running.size());
      MoveRecord& landed = moves[running[chosen]];
      landed.state = MoveState::kDone;
      --now[landed.move.source];
      running.erase(running.begin() + chosen);
      ++ended;
    }
  }
}

}  // namespace
}  // namespace samepage::placer
