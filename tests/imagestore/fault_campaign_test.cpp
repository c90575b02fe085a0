// The promise under test, by brute force: a store node that is killed (SIGKILL) in whatever moment,
// or whose client is, costs readers nothing but a second way. SAMEPAGE_FAULTS=1000 runs the whole
// campaign, so many rounds for each case; without it there are a few. The seed is printed;
// SAMEPAGE_SEED runs it again.

#include <atomic>
#include <thread>

#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include "imagestore/store_control.h"
#include "imagestore/store_listener.h"
#include "tests/imagestore/killing.h"
#include "tests/imagestore/store_harness.h"

namespace samepage::imagestore {
namespace {

/// Store nodes and their clients in processes that die.
class NodeCampaign : public ::testing::Test {
 protected:
  static constexpr std::size_t kExtents = 60;

  std::string socket() { return scratch_ / "store.sock"; }

  StoreClient::Options client_options() {
    return {.keys = extents_.keys, .keeper = {.pause_min = std::chrono::milliseconds(5)}};
  }

  Scratch scratch_;
  std::mt19937_64 random_{test_seed()};
  Extents extents_{kExtents, 3};
  const SystemClock clock_;
};

TEST_F(NodeCampaign, AClientThatIsKilledInMidUploadLeavesNothingThatAnybodyReads) {
  const Shared told;
  const Killer uploader(told, [&] {
    SocketControl control(socket());
    OriginExtents origin(extents_.origin, extents_.keys);
    StoreClient client(client_options(), control, &origin, clock_);
    if (!client.wait_for_nodes(soon())) ::_exit(1);
    told->ready = true;
    while (true) {
      fetch_all(client, extents_, 0, kExtents);
      if (!client.drain(soon())) ::_exit(2);
    }
  });
  const auto node = StoreNode::create(small_node(), {extents_.keys}, clock_).value();
  const auto listener = StoreListener::create({.path = socket()}, *node).value();
  const std::uint64_t kills = strikes(15);
  for (std::uint64_t round = 0; round < kills; ++round) {
    const int status = uploader.kill_after(std::chrono::microseconds(random_() % 8'000));
    ASSERT_TRUE(was_killed(status)) << "exit " << WEXITSTATUS(status);
    SocketControl control(socket());
    StoreClient client(client_options(), control, nullptr, clock_);
    ASSERT_TRUE(client.wait_for_nodes(soon()));
    const Fetched fetched = fetch_all(client, extents_, 0, kExtents);
    ASSERT_EQ(fetched.wrong, 0U);
    ASSERT_EQ(client.counts().failed_checks, 0U) << "what is published is whole";
    // Half of the time the next upload begins from nothing.
    if (round % 2 == 0) node->revoke_all();
  }
  const auto give_up = soon();
  while (node->report().leases() > 0 && std::chrono::steady_clock::now() < give_up) {
    std::this_thread::yield();
  }
  EXPECT_EQ(node->report().leases(), 0U) << "the dead hold nothing";
}

TEST_F(NodeCampaign, ANodeThatIsKilledInMidReadCostsNoRead) {
  const Shared told;
  const Killer node(told, [&] {
    const auto served = StoreNode::create(small_node(), {extents_.keys}, clock_).value();
    const auto listener = StoreListener::create({.path = socket()}, *served).value();
    told->ready = true;
    while (true) ::pause();
  });
  SocketControl control(socket());
  OriginExtents origin(extents_.origin, extents_.keys);
  StoreClient client(client_options(), control, &origin, clock_);
  std::uint64_t reads = 0;
  const std::uint64_t kills = strikes(10);
  std::atomic<std::uint64_t> killed = 0;
  std::atomic<bool> stop = false;
  const std::jthread killer([&] {
    for (std::uint64_t round = 0; round < kills; ++round) {
      const int status = node.kill_after(std::chrono::microseconds(random_() % 250'000));
      killed += was_killed(status) ? 1 : 0;
    }
    stop = true;
  });
  while (!stop) {
    const Fetched fetched = fetch_all(client, extents_, 0, kExtents);
    reads += fetched.right;
    ASSERT_EQ(fetched.wrong + fetched.failed, 0U);
  }
  std::cout << kills << " kills, " << reads << " reads, " << client.counts().own
            << " from the node\n";
  EXPECT_EQ(killed, kills);
  EXPECT_GT(client.counts().own, 0U);
  EXPECT_GT(client.counts().origin, 0U);
}

}  // namespace
}  // namespace samepage::imagestore
