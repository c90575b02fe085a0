// The promise under test: shares follow weights to within two slots, a change moves 1/n of the
// extents and no more, homes differ in their failure domains, and a damaged ring message is
// refused.

#include "imagestore/ring.h"

#include <cmath>
#include <set>

#include <gtest/gtest.h>

#include "tests/imagestore/scratch.h"

namespace samepage::imagestore {
namespace {

RingMember member(int number, double weight = 1, int hosts_in_a_rack = 4) {
  return {.node = "node" + std::to_string(number),
          .weight = weight,
          .host = "host" + std::to_string(number),
          .rack = "rack" + std::to_string(number / hosts_in_a_rack)};
}

Ring ring_of(int count) {
  Ring ring;
  for (int i = 0; i < count; ++i) ring = *ring.joined(member(i));
  return ring;
}

std::vector<ObjectName> random_names(std::size_t count, std::uint64_t seed) {
  std::mt19937_64 random(seed);
  std::vector<ObjectName> names(count);
  for (ObjectName& name : names) {
    for (std::byte& byte : name.bytes) byte = static_cast<std::byte>(random());
  }
  return names;
}

TEST(RingTest, JoiningAndLeavingMoveOneShareAndNoMore) {
  const auto names = random_names(100'000, test_seed());
  for (const int count : {1, 2, 3, 8, 16, 33, 64}) {
    const Ring before = ring_of(count);
    const Ring joined = *before.joined(member(count));
    const Ring left = *before.joined(member(count))->left("node0");
    const auto moved = [&](const Ring& a, const Ring& b) {
      std::size_t number = 0;
      for (const ObjectName& name : names) {
        const auto& from = a.members()[a.homes(name, 1)[0]].node;
        if (from != b.members()[b.homes(name, 1)[0]].node) ++number;
      }
      return static_cast<double>(number) / static_cast<double>(names.size());
    };
    const double n = count + 1;
    EXPECT_LE(moved(before, joined), 1.1 / n) << count;
    EXPECT_LE(moved(joined, left), 1.1 / n) << count;
    EXPECT_LE(joined.moved_from(before), std::size_t(std::ceil(Ring::kSlots / n)));
    EXPECT_EQ(joined.version(), before.version() + 1);
  }
}

TEST(RingTest, SharesFollowWeightsWithinTwoSlotsWhateverHappened) {
  std::mt19937_64 random(test_seed());
  Ring ring;
  int next = 0;
  for (int step = 0; step < 200; ++step) {
    if (ring.members().size() > 2 && random() % 3 == 0) {
      ring = *ring.left(ring.members()[random() % ring.members().size()].node);
    } else {
      ring = *ring.joined(member(next++, 0.5 + static_cast<double>(random() % 4)));
    }
    double sum = 0;
    for (const RingMember& each : ring.members()) sum += each.weight;
    const auto shares = ring.shares();
    for (std::size_t i = 0; i < shares.size(); ++i) {
      const double fair = Ring::kSlots * ring.members()[i].weight / sum;
      ASSERT_LE(std::abs(static_cast<double>(shares[i]) - fair), 2.0) << step;
    }
  }
}

TEST(RingTest, HomesDifferInRackThenInHost) {
  const Ring ring = ring_of(12);
  for (const ObjectName& name : random_names(500, 1)) {
    const auto homes = ring.homes(name, 4);
    ASSERT_EQ(homes.size(), 4U);
    std::set<std::string> racks;
    std::set<std::size_t> distinct(homes.begin(), homes.end());
    for (std::size_t i = 0; i < 3; ++i) racks.insert(ring.members()[homes[i]].rack);
    EXPECT_EQ(racks.size(), 3U);
    EXPECT_EQ(distinct.size(), 4U);
  }
  EXPECT_EQ(ring.homes(ObjectName{}, 100).size(), 12U);
  EXPECT_TRUE(Ring().homes(ObjectName{}, 2).empty());
}

TEST(RingTest, RefusesWhatCannotBe) {
  const Ring ring = ring_of(2);
  for (const RingMember& bad : {member(0), member(5, 0), member(5, 1e6), RingMember{}}) {
    const auto refused = ring.joined(bad);
    ASSERT_FALSE(refused);
    EXPECT_EQ(refused.error().code(), Errc::kInvalid);
  }
  const auto missing = ring.left("node9");
  ASSERT_FALSE(missing);
  EXPECT_EQ(missing.error().code(), Errc::kNotFound);
  EXPECT_TRUE(ring.left("node0")->left("node1")->members().empty());
}

TEST(RingTest, TravelsAsAMessageAndRefusesDamage) {
  for (const int count : {0, 1, 7}) {
    const Ring ring = ring_of(count);
    const auto again = Ring::from_message(ring.to_message());
    ASSERT_TRUE(again);
    EXPECT_EQ(again->members(), ring.members());
    EXPECT_EQ(again->version(), ring.version());
    EXPECT_EQ(again->shares(), ring.shares());
  }
  const auto refused = [](const bus::StoreRing& message) {
    const auto read = Ring::from_message(message);
    return !read && read.error().code() == Errc::kCorrupt;
  };
  auto message = ring_of(3).to_message();
  message.mutable_slots()->back() = '\x7F';
  EXPECT_TRUE(refused(message));
  message = ring_of(3).to_message();
  message.mutable_slots()->pop_back();
  EXPECT_TRUE(refused(message));
  message = ring_of(3).to_message();
  message.mutable_members(1)->set_node("node0");
  EXPECT_TRUE(refused(message));
  message = ring_of(3).to_message();
  message.mutable_members(1)->set_weight(-1);
  EXPECT_TRUE(refused(message));
}

}  // namespace
}  // namespace samepage::imagestore
