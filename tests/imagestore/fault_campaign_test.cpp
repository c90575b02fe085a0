// The promises under test, by brute force: whoever is killed (SIGKILL) in whatever moment, no
// acknowledged commit is lost and the store verifies clean; a store node that is killed, or whose
// client is, costs readers nothing but a second way; and of a hundred thousand flipped bits none is
// served. SAMEPAGE_FAULTS=1000 runs the whole campaign, a number of rounds for each case; without
// it there are a few. The seed is printed; SAMEPAGE_SEED runs it again.

#include <atomic>
#include <csignal>
#include <thread>

#include <gtest/gtest.h>
#include <sched.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "imagestore/commit.h"
#include "imagestore/garbage_collector.h"
#include "imagestore/image_reader.h"
#include "imagestore/store_control.h"
#include "imagestore/store_listener.h"
#include "imagestore/verifier.h"
#include "tests/fakes/fake_clock.h"
#include "tests/imagestore/store_harness.h"

namespace samepage::imagestore {
namespace {

constexpr std::size_t kPages = 600;
constexpr std::size_t kChanged = 24;

std::uint64_t rounds(std::uint64_t few) {
  const char* const given = std::getenv("SAMEPAGE_FAULTS");  // NOLINT(concurrency-mt-unsafe)
  return given == nullptr ? few : std::strtoull(given, nullptr, 10);
}

/// What a child that will be killed tells its parent.
struct Told {
  std::atomic<bool> ready = false;
  std::atomic<std::uint64_t> done = 0;  ///< Versions, rounds: what the case counts.
};

class Shared {
 public:
  Shared()
      : told_(new (::mmap(nullptr, sizeof(Told), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS,
                          -1, 0)) Told) {}
  Shared(const Shared&) = delete;
  Shared& operator=(const Shared&) = delete;
  ~Shared() { ::munmap(told_, sizeof(Told)); }
  Told* operator->() const { return told_; }

 private:
  Told* told_;
};

/// Runs `work` in a child and kills it a moment after it is ready.
template <class Work>
void kill_in(const Shared& told, std::chrono::microseconds moment, Work work) {
  told->ready = false;
  const pid_t child = ::fork();
  if (child == 0) {
    work();
    ::_exit(3);
  }
  while (!told->ready && ::waitpid(child, nullptr, WNOHANG) == 0) ::sched_yield();
  std::this_thread::sleep_for(moment);
  ::kill(child, SIGKILL);
  int status = 0;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  ASSERT_TRUE(WIFSIGNALED(status)) << "exit " << WEXITSTATUS(status);
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
    kill_in(told, moment(span_us), [&] {
      const auto store = open_store(scratch_ / "store");
      told->ready = true;
      for (std::uint64_t number = told->done + 1;; ++number) {
        commit_next(*store);
        told->done = number;
      }
    });
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
    kill_in(told, moment(span_us), [&] {
      const auto store = open_store(scratch_ / "store");
      told->ready = true;
      while (true) {
        if (!collect_garbage(*store, {}, clock)) ::_exit(1);
        ++told->done;
      }
    });
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
  const auto node = StoreNode::create(small_node(), {extents_.keys}, clock_).value();
  const auto listener = StoreListener::create({.path = socket()}, *node).value();
  const Shared told;
  const std::uint64_t kills = rounds(15);
  for (std::uint64_t round = 0; round < kills; ++round) {
    kill_in(told, std::chrono::microseconds(random_() % 8'000), [&] {
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
  SocketControl control(socket());
  OriginExtents origin(extents_.origin, extents_.keys);
  StoreClient client(client_options(), control, &origin, clock_);
  const Shared told;
  std::uint64_t reads = 0;
  const std::uint64_t kills = rounds(10);
  std::atomic<bool> stop = false;
  std::jthread killer([&] {
    for (std::uint64_t round = 0; round < kills; ++round) {
      kill_in(told, std::chrono::microseconds(random_() % 250'000), [&] {
        const auto node = StoreNode::create(small_node(), {extents_.keys}, clock_).value();
        const auto listener = StoreListener::create({.path = socket()}, *node).value();
        told->ready = true;
        while (true) ::pause();
      });
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
  EXPECT_GT(client.counts().own, 0U);
  EXPECT_GT(client.counts().origin, 0U);
}

/// Flips a bit in some of what is read through it.
class NoisyMemory final : public RemoteMemory {
 public:
  NoisyMemory(std::unique_ptr<RemoteMemory> memory, std::mt19937_64& random, std::uint64_t& flips)
      : RemoteMemory(memory->bytes()), memory_(std::move(memory)), random_(random), flips_(flips) {}

  Result<void> read_batch(std::span<const RemoteRead> reads) override {
    TRY(memory_->read_batch(reads));
    for (const RemoteRead& read : reads) {
      if (is_first_) continue;  // The header is read once; a lease without it is of no use.
      if (random_() % 4 == 0) continue;
      const std::size_t bit = random_() % (8 * read.into.size());
      read.into[bit / 8] ^= static_cast<std::byte>(1U << (bit % 8));
      ++flips_;
    }
    is_first_ = false;
    return {};
  }
  Result<void> write_batch(std::span<const RemoteWrite> writes) override {
    return memory_->write_batch(writes);
  }
  void poll(std::vector<RemoteDone>& done, Deadline deadline) override {
    memory_->poll(done, deadline);
  }
  std::size_t under_way() const override { return memory_->under_way(); }
  std::size_t operations_max() const override { return memory_->operations_max(); }
  bool is_usable() const override { return memory_->is_usable(); }
  void extend(Deadline expires) override { memory_->extend(expires); }
  bool is_local() const override { return memory_->is_local(); }

 private:
  std::unique_ptr<RemoteMemory> memory_;
  std::mt19937_64& random_;
  std::uint64_t& flips_;
  bool is_first_ = true;
};

TEST_F(NodeCampaign, NoBitFlippedOnTheWireIsServed) {
  Nodes nodes("own");
  nodes.add("own", small_node(), extents_.keys);
  DirectControl control(nodes, "test");
  OriginExtents origin(extents_.origin, extents_.keys);
  {
    StoreClient filler(client_options(), control, &origin, clock_);
    ASSERT_TRUE(filler.wait_for_node(soon()));
    fetch_all(filler, extents_, 0, kExtents);
    ASSERT_TRUE(filler.drain(soon()));
  }
  std::uint64_t flips = 0;
  auto options = client_options();
  options.open = [&](FabricTicket ticket, FabricAccess access,
                     Deadline expires) -> Result<std::unique_ptr<RemoteMemory>> {
    auto memory = TRY(open_remote(std::move(ticket), access, expires, clock_));
    if (access == FabricAccess::kWrite) return memory;
    return std::make_unique<NoisyMemory>(std::move(memory), random_, flips);
  };
  StoreClient client(std::move(options), control, &origin, clock_);
  ASSERT_TRUE(client.wait_for_node(soon()));
  const std::uint64_t flips_min = 100 * rounds(20);
  while (flips < flips_min) {
    const Fetched fetched = fetch_all(client, extents_, 0, kExtents);
    ASSERT_EQ(fetched.wrong + fetched.failed, 0U);
  }
  std::cout << flips << " bits flipped, " << client.counts().own << " extents good at last, "
            << client.counts().origin << " from the origin\n";
  EXPECT_GT(client.counts().failed_checks, 0U);
}

TEST_F(NodeCampaign, NoBitFlippedInAnArenaIsServed) {
  Nodes nodes("own");
  StoreNode& node = nodes.add("own", small_node(), extents_.keys);
  DirectControl control(nodes, "test");
  OriginExtents origin(extents_.origin, extents_.keys);
  StoreClient client(client_options(), control, &origin, clock_);
  ASSERT_TRUE(client.wait_for_node(soon()));
  fetch_all(client, extents_, 0, kExtents);
  ASSERT_TRUE(client.drain(soon()));
  const std::uint64_t flips = 100 * rounds(20);
  const auto geometry = decode_geometry(node.memory().first(kArenaHeaderBytes)).value();
  std::uint64_t flipped = 0;
  while (flipped < flips) {
    std::uint64_t damaged = 0;
    // In what is served now: its place moves with every healing.
    for (const ObjectName& name : extents_.names) {
      for (const std::uint64_t at : bucket_offsets(name, geometry)) {
        const auto bucket = node.memory().subspan(at, kBucketBytes);
        const auto entry = find_in_bucket(bucket, name, geometry);
        if (!entry) continue;
        const std::size_t byte = entry->offset + random_() % entry->bytes;
        node.memory()[byte] ^= static_cast<std::byte>(1U << (random_() % 8));
        ++flipped;
        ++damaged;
        break;
      }
    }
    const std::uint64_t before = client.counts().failed_checks;
    const Fetched fetched = fetch_all(client, extents_, 0, kExtents);
    ASSERT_EQ(fetched.wrong + fetched.failed, 0U);
    ASSERT_GE(client.counts().failed_checks - before, damaged) << "every flip was noticed";
    ASSERT_TRUE(client.drain(soon())) << "which heals the node";
  }
  std::cout << flipped << " bits flipped, " << client.counts().failed_checks << " noticed\n";
}

TEST_F(FaultCampaign, NoBitFlippedInAnObjectIsServed) {
  const auto store = open_store(scratch_ / "store", DirOrigin::Access::kRead);
  std::vector<std::pair<ObjectName, std::vector<std::byte>>> objects;
  ASSERT_TRUE(store->origin().list([&](const StoredObject& object) -> Result<void> {
    objects.emplace_back(object.name, TRY(store->origin().get(object.name)));
    return {};
  }));
  const DomainKeys& keys = store->keys();
  const auto truth = ExtentBuffer::create();
  const auto buffer = ExtentBuffer::create();
  const std::uint64_t flips = 100 * rounds(50);
  std::uint64_t refused = 0;
  for (std::uint64_t i = 0; i < flips; ++i) {
    const auto& [name, good] = objects[random_() % objects.size()];
    // Past every checksum, as a forger would: what is left are the digests.
    auto bad = good;
    const std::size_t bit = random_() % (8 * bad.size());
    bad[bit / 8] ^= static_cast<std::byte>(1U << (bit % 8));
    if (truth->load(name, good, keys)) {
      if (!buffer->load(name, bad, keys)) {
        ++refused;
      } else {
        ASSERT_TRUE(std::ranges::equal(buffer->pages(), truth->pages()));
      }
      continue;
    }
    fakes::FakeOrigin origin;
    ASSERT_TRUE(origin.put(name, bad));
    ASSERT_FALSE(Manifest::open(origin, keys, name)) << "a node or a version";
    const auto named = name_node(bad, keys);
    const auto leaf = ManifestNode::decode(bad, keys, 0);
    ASSERT_FALSE(leaf && named && *named == name);
    ++refused;
  }
  std::cout << flips << " bits flipped, " << refused << " objects refused\n";
  EXPECT_GT(refused, flips / 2);
}

}  // namespace
}  // namespace samepage::imagestore
