// The promises under test, by brute force: whoever is killed (SIGKILL) in whatever moment, no
// acknowledged commit is lost and the store verifies clean; a store node that is killed, or whose
// client is, costs readers nothing but a second way. SAMEPAGE_FAULTS=1000 runs the whole campaign,
// so many rounds for each case; without it there are a few. The seed is printed; SAMEPAGE_SEED runs
// it again.

#include <atomic>
#include <thread>

#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include "imagestore/commit.h"
#include "imagestore/garbage_collector.h"
#include "imagestore/image_reader.h"
#include "imagestore/store_control.h"
#include "imagestore/store_listener.h"
#include "imagestore/verifier.h"
#include "tests/fakes/fake_clock.h"
#include "tests/imagestore/killing.h"
#include "tests/imagestore/store_harness.h"

namespace samepage::imagestore {
namespace {

constexpr std::size_t kPages = 600;
constexpr std::size_t kChanged = 24;

std::uint64_t rounds(std::uint64_t few) {
  const char* const given = std::getenv("SAMEPAGE_FAULTS");  // NOLINT(concurrency-mt-unsafe)
  return given == nullptr ? few : std::strtoull(given, nullptr, 10);
}

class FaultCampaign : public ::testing::Test {
 protected:
  FaultCampaign() {
    write_file(scratch_ / "disk", disk_bytes(kPages, 5));
    EXPECT_TRUE(import_file(*open_store(scratch_ / "store"), scratch_ / "disk", "disk"));
  }

  std::chrono::microseconds moment(std::uint64_t below_us) {
    return std::chrono::microseconds(random_() % below_us);
  }

  /// Twice what `work` takes, in microseconds: kills fall into that, whatever the machine's load.
  template <class Work>
  std::uint64_t twice(Work work) {
    const auto start = std::chrono::steady_clock::now();
    work();
    const auto took = std::chrono::steady_clock::now() - start;
    return 1'000 + 2 * static_cast<std::uint64_t>(
                           std::chrono::duration_cast<std::chrono::microseconds>(took).count());
  }

  void commit_next(ImageStore& store) {
    const auto head = store.catalog().find("disk").value().head;
    const std::uint64_t number = head.number + 1;
    auto commit = Commit::begin(store, {.image = "disk", .base = head.id}).value();
    if (!commit->put(first_page(number), content(number))) ::_exit(1);
    if (!commit->finish(SystemClock())) ::_exit(2);
  }

  /// What version `number` has at pages that its number chooses.
  static std::vector<std::byte> content(std::uint64_t number) {
    return random_bytes(kChanged * kPageSize, number);
  }
  static std::uint64_t first_page(std::uint64_t number) {
    return number * 31 % (kPages - kChanged);
  }

  void expect_clean() {
    const auto store = open_store(scratch_ / "store");
    const auto report = verify_store(*store, {}).value();
    ASSERT_TRUE(report.clean()) << report.descriptions.front();
  }

  Scratch scratch_;
  std::mt19937_64 random_{test_seed()};
};

TEST_F(FaultCampaign, NoAcknowledgedCommitIsLost) {
  const Shared told;
  const std::uint64_t span_us = twice([&] { commit_next(*open_store(scratch_ / "store")); });
  told->done = 2;
  const std::uint64_t kills = rounds(15);
  for (std::uint64_t round = 0; round < kills; ++round) {
    const int status = kill_in(told, moment(span_us), [&] {
      const auto store = open_store(scratch_ / "store");
      told->ready = true;
      for (std::uint64_t number = told->done + 1;; ++number) {
        commit_next(*store);
        told->done = number;
      }
    });
    ASSERT_TRUE(WIFSIGNALED(status)) << "exit " << WEXITSTATUS(status);
    const auto store = open_store(scratch_ / "store");
    const auto head = store->catalog().find("disk").value().head.number;
    ASSERT_GE(head, told->done);
    ASSERT_LE(head, told->done + 1) << "one may be durable and not acknowledged yet";
    auto reader = ImageReader::open(*store, "disk", head).value();
    std::vector<std::byte> bytes(kChanged * kPageSize);
    ASSERT_TRUE(reader->read(first_page(head) * kPageSize, bytes));
    ASSERT_EQ(bytes, content(head));
    told->done = head;
    if (round % 100 == 0) expect_clean();
  }
  expect_clean();
  const auto store = open_store(scratch_ / "store");
  for (std::uint64_t number = 2; number <= told->done; number += 1 + told->done / 200) {
    auto reader = ImageReader::open(*store, "disk", number).value();
    std::vector<std::byte> bytes(kChanged * kPageSize);
    ASSERT_TRUE(reader->read(first_page(number) * kPageSize, bytes));
    ASSERT_EQ(bytes, content(number)) << number;
  }
  std::cout << kills << " kills, " << told->done << " versions\n";
  EXPECT_GT(told->done, 2U) << "no commit returned before its kill";
}

TEST_F(FaultCampaign, TheCollectorCanBeKilledAtAnyMoment) {
  const Shared told;
  const std::uint64_t kills = rounds(15);
  std::uint64_t next = 0;
  ::samepage::fakes::FakeClock clock;
  const std::uint64_t span_us =
      twice([&] { ASSERT_TRUE(collect_garbage(*open_store(scratch_ / "store"), {}, clock)); });
  for (std::uint64_t round = 0; round < kills; ++round) {
    {
      const auto store = open_store(scratch_ / "store");
      write_file(scratch_ / "gone", random_bytes(300 * kPageSize, 100 + round));
      const std::string name = "gone-" + std::to_string(next++);
      ASSERT_TRUE(import_file(*store, scratch_ / "gone", name));
      ASSERT_TRUE(store->catalog().remove(name, {}));
    }
    clock.advance(std::chrono::hours(25));
    const int status = kill_in(told, moment(span_us), [&] {
      const auto store = open_store(scratch_ / "store");
      told->ready = true;
      while (true) {
        if (!collect_garbage(*store, {}, clock)) ::_exit(1);
        ++told->done;
      }
    });
    ASSERT_TRUE(WIFSIGNALED(status)) << "exit " << WEXITSTATUS(status);
    if (round % 25 == 0) expect_clean();
  }
  expect_clean();
  const auto store = open_store(scratch_ / "store");
  auto reader = ImageReader::open(*store, "disk").value();
  std::vector<std::byte> bytes(kPages * kPageSize);
  ASSERT_TRUE(reader->read(0, bytes));
  EXPECT_EQ(bytes, disk_bytes(kPages, 5));
  std::cout << kills << " kills, " << told->done << " collections ended\n";
}

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
    if (!client.wait_for_node(soon())) ::_exit(1);
    told->ready = true;
    while (true) {
      fetch_all(client, extents_, 0, kExtents);
      if (!client.drain(soon())) ::_exit(2);
    }
  });
  const auto node = StoreNode::create(small_node(), {extents_.keys}, clock_).value();
  const auto listener = StoreListener::create({.path = socket()}, *node).value();
  const std::uint64_t kills = rounds(15);
  for (std::uint64_t round = 0; round < kills; ++round) {
    const int status = uploader.kill_after(std::chrono::microseconds(random_() % 8'000));
    ASSERT_TRUE(WIFSIGNALED(status)) << "exit " << WEXITSTATUS(status);
    SocketControl control(socket());
    StoreClient client(client_options(), control, nullptr, clock_);
    ASSERT_TRUE(client.wait_for_node(soon()));
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
  const std::uint64_t kills = rounds(10);
  std::atomic<std::uint64_t> killed = 0;
  std::atomic<bool> stop = false;
  const std::jthread killer([&] {
    for (std::uint64_t round = 0; round < kills; ++round) {
      const int status = node.kill_after(std::chrono::microseconds(random_() % 250'000));
      killed += WIFSIGNALED(status) ? 1 : 0;
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
