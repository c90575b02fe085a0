#include "placer/storm.h"

#include <chrono>
#include <random>

#include <gtest/gtest.h>

namespace samepage::placer {
namespace {

constexpr std::uint64_t kGib = std::uint64_t{1} << 30U;

std::vector<StormHost> equal_hosts(std::size_t count) {
  std::vector<StormHost> hosts;
  for (std::size_t i = 0; i < count; ++i) {
    hosts.push_back({.name = "host" + std::to_string(i), .capacity_bytes = 64 * kGib});
  }
  return hosts;
}

TEST(Storm, a_host_with_the_template_comes_first) {
  auto hosts = equal_hosts(2);
  hosts[1].has_template = true;
  const auto placed = place_storm({.count = 1, .vm_bytes = kGib, .template_bytes = kGib}, hosts);
  ASSERT_TRUE(placed);
  EXPECT_EQ(placed->host_of, std::vector<std::size_t>{1});
  EXPECT_TRUE(placed->shares[1].reason.starts_with("holds the template"));
}

TEST(Storm, says_how_many_fit_when_not_all_do) {
  auto hosts = equal_hosts(1);
  hosts[0].used_bytes = 60 * kGib;
  const auto placed = place_storm({.count = 9, .vm_bytes = kGib, .template_bytes = kGib}, hosts);
  ASSERT_FALSE(placed);
  EXPECT_EQ(placed.error().code(), Errc::kUnavailable);
  EXPECT_EQ(placed.error().message(), "the hosts have memory for 3 of these 9 VMs of 1024 MiB");
}

TEST(Storm, a_full_host_gets_none) {
  auto hosts = equal_hosts(3);
  hosts[1].used_bytes = hosts[1].capacity_bytes;
  const auto placed = place_storm({.count = 20, .vm_bytes = kGib}, hosts);
  ASSERT_TRUE(placed);
  EXPECT_EQ(placed->shares[1].vms, 0U);
  EXPECT_EQ(placed->shares[1].reason, "no memory for one more");
}

TEST(Storm, a_thousand_vms_on_a_hundred_uneven_hosts_are_within_5_percent_of_the_bound) {
  const unsigned seed = 7;
  SCOPED_TRACE("seed " + std::to_string(seed));
  std::mt19937_64 random(seed);
  for (int round = 0; round < 20; ++round) {
    auto hosts = equal_hosts(100);
    for (StormHost& host : hosts) {
      host.capacity_bytes = (64 + random() % 448) * kGib;
      host.used_bytes = host.capacity_bytes / 100 * (random() % 60);
      host.has_template = random() % 4 == 0;
      host.boots_at_once = 2 + static_cast<unsigned>(random() % 6);
    }
    const Storm storm{.count = 1'000, .vm_bytes = 2 * kGib, .template_bytes = 2 * kGib};
    const auto placed = place_storm(storm, hosts);
    ASSERT_TRUE(placed) << placed.error().message();
    EXPECT_LE(placed->peak, placed->peak_bound * 1.05 + 1e-6);
    EXPECT_EQ(placed->host_of.size(), storm.count);
    // The bound is one: a hair below it, the hosts have no room for all.
    for (std::size_t i = 0; i < hosts.size(); ++i) {
      EXPECT_LE(placed->shares[i].used_after, 1.0);
    }
  }
}

}  // namespace
}  // namespace samepage::placer
