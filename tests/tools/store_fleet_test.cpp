// The image store in a fleet, over the real bus, sockets and fabrics: hosts that lend memory join
// and leave the ring, which survives the placer; disks reach every node through their own agent;
// what one host has read, others are sent to; and a host that is thrown out reads no more.

#include <atomic>
#include <csignal>
#include <map>
#include <set>

#include <sched.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "imagestore/extent_source.h"
#include "imagestore/store_client.h"
#include "imagestore/store_control.h"
#include "imagestore/version_source.h"
#include "tests/imagestore/killing.h"
#include "tests/imagestore/store_harness.h"
#include "tests/tools/services_harness.h"

namespace samepage {
namespace {

using imagestore::Ring;
using imagestore::SocketControl;
using imagestore::StoreClient;

class StoreFleetTest : public ServicesTest {
 protected:
  std::unique_ptr<HostUnderTest> lender(const std::string& name, const std::string& pool = "") {
    auto host = enrolled_host(name);
    host->options().store_mib = 64;
    if (!pool.empty()) host->options().store_dir = pool;
    host->join();
    wait_until([&] { return node(name).has_value(); }, name + " lends memory");
    return host;
  }

  Result<void> join(const std::string& name, const std::string& rack) {
    return placer_->join_store({.node = name, .weight = 1, .host = name, .rack = rack});
  }

  static std::string socket_of(HostUnderTest& host) {
    return host.options().run_dir + "/store.sock";
  }

  std::optional<control::StoreDirectory::Node> node(const std::string& name) {
    for (const auto& known : placer_->stores().status().nodes) {
      if (known.name == name && known.report) return known;
    }
    return std::nullopt;
  }

  static bus::StoreReply ask(HostUnderTest& host, const bus::StoreRequest& request) {
    SocketControl control(socket_of(host));
    auto answer = control.call(request, imagestore::soon());
    EXPECT_TRUE(answer) << answer.error().message();
    return answer ? answer->reply : bus::StoreReply();
  }

  static Ring ring_at(HostUnderTest& host) {
    bus::StoreRequest request;
    request.mutable_ask_ring();
    return Ring::from_message(ask(host, request).ring()).value();
  }

  static void wait_until(const std::function<bool()>& true_now, const std::string& what) {
    const auto give_up = std::chrono::steady_clock::now() + kPatience;
    while (!true_now()) {
      ASSERT_LT(std::chrono::steady_clock::now(), give_up) << what << " did not come";
      std::this_thread::sleep_for(std::chrono::milliseconds(5));
    }
  }

  imagestore::DomainKeys keys() {
    const auto ledger = placer_->open_ledger().value();
    return imagestore::DomainKeys(ledger->registry().domain("default").value().key);
  }
};

TEST_F(StoreFleetTest, NodesJoinAndLeaveAndThePlacerRemembers) {
  const auto host1 = lender("host1");
  const auto host2 = lender("host2");
  const auto idle = enrolled_host("idle");
  idle->join();
  seen("idle", placer::HostState::kUp);

  EXPECT_EQ(join("idle", "").error().code(), Errc::kInvalid);
  ASSERT_TRUE(join("host1", "r1"));
  ASSERT_TRUE(join("host2", "r2"));
  EXPECT_EQ(join("host2", "").error().code(), Errc::kInvalid);
  for (HostUnderTest* host : {idle.get(), host1.get()}) {
    wait_until([&] { return ring_at(*host).members().size() == 2; }, "the ring");
  }
  EXPECT_EQ(ring_at(*host1).shares(), (std::vector<std::size_t>{2048, 2048}));

  placer_.reset();
  start_placer();
  EXPECT_EQ(placer_->stores().ring().members().size(), 2U);
  seen("host1", placer::HostState::kUp);

  ASSERT_TRUE(placer_->leave_store("host1"));
  wait_until([&] { return ring_at(*host2).members().size() == 1; }, "the next ring");
  EXPECT_EQ(placer_->leave_store("host1").error().code(), Errc::kNotFound);
  EXPECT_TRUE(placer_->forget("host2"));
  EXPECT_TRUE(placer_->stores().ring().members().empty());
}

TEST_F(StoreFleetTest, DisksOfAnyHostReadAndFillEveryNode) {
  const auto host1 = lender("host1");
  const auto host2 = lender("host2");
  const auto reader = enrolled_host("reader");
  reader->join();
  ASSERT_TRUE(join("host1", ""));
  ASSERT_TRUE(join("host2", ""));
  wait_until([&] { return ring_at(*reader).members().size() == 2; }, "the ring");
  const imagestore::DomainKeys fleet_keys = keys();
  imagestore::Extents extents(40, 7, 8, fleet_keys);
  const auto& names = extents.names;
  imagestore::OriginExtents from_origin(extents.origin, fleet_keys);
  SocketControl control(socket_of(*reader));
  StoreClient client({.keys = fleet_keys, .has_own_node = false}, control, &from_origin, clock_);
  client.set_ring(ring_at(*reader));
  ASSERT_TRUE(client.wait_for_nodes(imagestore::soon()));
  wait_until(
      [&] {
        EXPECT_EQ(fetch_all(client, extents, 0, names.size()).right, names.size());
        EXPECT_TRUE(client.drain(imagestore::soon()));
        bus::StoreRequest request;
        request.mutable_ask_status();
        return ask(*host1, request).status().extents() > 0 &&
               ask(*host2, request).status().extents() > 0;
      },
      "extents in both nodes");
  const auto before = client.counts().homes;
  const auto fetched = fetch_all(client, extents, 0, names.size());
  EXPECT_EQ(fetched.right, names.size());
  EXPECT_GT(client.counts().homes, before);

  // Thrown out: no lease of it is of use within a second.
  ASSERT_TRUE(placer_->forget("reader"));
  const auto out_at = std::chrono::steady_clock::now();
  bus::StoreRequest request;
  request.mutable_ask_status();
  wait_until([&] { return ask(*host1, request).status().leases() == 0; }, "no lease");
  wait_until([&] { return ask(*host2, request).status().leases() == 0; }, "no lease");
  EXPECT_LT(std::chrono::steady_clock::now() - out_at, std::chrono::seconds(1));
  const auto homes = client.counts().homes;
  EXPECT_EQ(fetch_all(client, extents, 0, names.size()).right, names.size()) << "by the origin";
  EXPECT_EQ(client.counts().homes, homes);
}

TEST_F(StoreFleetTest, DisksReadTheirVersionFromEveryNodeThatHasIt) {
  // A folder that both hosts share, as they would a pool, with the key of its images.
  const std::string pool = folder_.file("pool");
  imagestore::write_file(folder_.file("image"), imagestore::disk_bytes(1'000, 3));
  const auto version =
      imagestore::import_file(*imagestore::open_store(pool), folder_.file("image"), "base")
          ->version.id;
  auto host1 = lender("host1", pool);
  const auto host2 = lender("host2", pool);
  ASSERT_TRUE(join("host1", ""));
  ASSERT_TRUE(join("host2", ""));
  const auto open = [&](HostUnderTest& host) {
    return imagestore::VersionSource::open(
               {.store = {.folder = pool}, .agent_socket = socket_of(host)}, version)
        .value();
  };
  const auto read_all = [](imagestore::VersionSource& source) {
    std::set<imagestore::ObjectName> names;
    const auto buffer = imagestore::ExtentBuffer::create();
    const auto read = source.manifest().walk(
        [](const auto&) { return true; },
        [&](std::uint64_t, const imagestore::PageRef& ref) -> Result<void> {
          if (!names.insert(ref.place.extent).second) return {};
          source.tend();
          return fetch_extent(source.extents(), ref.place.extent, *buffer, imagestore::soon());
        });
    EXPECT_TRUE(read) << read.error().message();
  };
  // A host that lends no memory: what it reads goes to the homes, and comes from there.
  const auto reader = enrolled_host("reader");
  reader->options().store_dir = pool;
  reader->join();
  const auto first = open(*reader);
  wait_until(
      [&] {
        read_all(*first);
        return first->counts().remote_extents > 0;
      },
      "extents of the homes");

  const auto second = open(*host1);
  wait_until(
      [&] {
        read_all(*second);
        return second->counts().own_extents > 0;
      },
      "extents of its own node");
  bus::StoreRequest warm;
  warm.mutable_ask_warm()->set_version(to_hex(version));
  wait_until([&] { return ask(*reader, warm).warm().hosts_size() == 1; }, "who is warm");
  EXPECT_EQ(ask(*reader, warm).warm().hosts(0), "host1");

  host1.reset();  // Lost: its extents come from elsewhere.
  for (int round = 0; round < 3; ++round) read_all(*first);
  EXPECT_EQ(first->counts().failed_checks, 0U);
}

/// A placer that is killed in mid-change has told nobody of a ring that it does not remember.
TEST(StoreDirectoryTest, TheLastAcknowledgedRingSurvivesKills) {
  const std::uint64_t kills = imagestore::strikes(10);
  TemporaryFolder folder;
  const std::string path = folder.file("store.db");
  const SystemClock clock;
  auto* const told =
      new (::mmap(nullptr, sizeof(std::atomic<std::uint64_t>), PROT_READ | PROT_WRITE,
                  MAP_SHARED | MAP_ANONYMOUS, -1, 0)) std::atomic<std::uint64_t>(0);
  for (std::uint64_t round = 0; round < kills; ++round) {
    const std::uint64_t before = *told;
    const pid_t child = ::fork();
    if (child == 0) {
      auto directory = control::StoreDirectory::open(path, clock).value();
      bus::StoreReport report;
      report.set_is_node(true);
      for (int i = 0;; i = (i + 1) % 8) {
        const std::string node = "node" + std::to_string(i);
        directory->take_report(node, report);
        auto ring = directory->join({.node = node, .weight = 1, .host = node, .rack = ""});
        if (!ring) ring = directory->leave(node);
        if (!ring) ::_exit(1);
        *told = ring->version();
      }
    }
    while (*told <= before + round % 7) ::sched_yield();
    ::kill(child, SIGKILL);
    int status = 0;
    ASSERT_EQ(::waitpid(child, &status, 0), child);
    ASSERT_TRUE(imagestore::was_killed(status));
    const auto ring = control::StoreDirectory::open(path, clock).value()->ring();
    ASSERT_GE(ring.version(), *told);
    ASSERT_LE(ring.version(), *told + 1);
    *told = ring.version();
  }
  ::munmap(told, sizeof(std::atomic<std::uint64_t>));
}

/// The placer and a lender's agent are killed again and again, while a client of another host reads
/// and fills the ring through them.
TEST_F(StoreFleetTest, APlacerOrAgentThatIsKilledInMidUploadCostsNoRead) {
  const std::uint64_t kills = imagestore::strikes(6);
  std::mt19937_64 random(imagestore::test_seed());
  const auto lost = enrolled_host("lost");
  lost->options().store_mib = 64;
  placer_.reset();
  // Forked while there are no threads.
  const imagestore::Shared told_placer;
  const imagestore::Shared told_agent;
  const imagestore::Killer placers(told_placer, [&] {
    start_placer();
    told_placer->ready = true;
    while (true) ::pause();
  });
  const imagestore::Killer agents(told_agent, [&] {
    lost->join();
    told_agent->ready = true;
    while (true) ::pause();
  });
  start_placer();
  const auto kept = lender("kept");
  const auto reader = enrolled_host("reader");
  reader->join();
  ASSERT_TRUE(join("kept", ""));
  lost->join();
  wait_until([&] { return node("lost").has_value(); }, "lost lends memory");
  ASSERT_TRUE(join("lost", ""));
  wait_until([&] { return ring_at(*reader).members().size() == 2; }, "the ring");
  const imagestore::Ring ring = ring_at(*reader);
  const imagestore::DomainKeys fleet_keys = keys();
  lost->leave();
  placer_.reset();

  imagestore::Extents extents(40, 7, 8, fleet_keys);
  imagestore::OriginExtents from_origin(extents.origin, fleet_keys);
  SocketControl control(socket_of(*reader));
  StoreClient client({.keys = fleet_keys,
                      .has_own_node = false,
                      .keeper = {.pause_min = std::chrono::milliseconds(5),
                                 .pause_max = std::chrono::milliseconds(50)}},
                     control, &from_origin, clock_);
  client.set_ring(ring);
  std::atomic<std::uint64_t> killed = 0;
  std::atomic<int> running = 2;
  const auto kill = [&](const imagestore::Killer& whom, std::uint64_t seed) {
    std::mt19937_64 moments(seed);
    for (std::uint64_t i = 0; i < kills; ++i) {
      const auto moment = std::chrono::microseconds(moments() % 400'000);
      killed += imagestore::was_killed(whom.kill_after(moment)) ? 1 : 0;
    }
    --running;
  };
  const std::jthread first([&, seed = random()] { kill(placers, seed); });
  const std::jthread second([&, seed = random()] { kill(agents, seed); });
  std::uint64_t reads = 0;
  while (running > 0) {
    const auto fetched = fetch_all(client, extents, 0, extents.names.size());
    ASSERT_EQ(fetched.wrong + fetched.failed, 0U);
    reads += fetched.right;
  }
  std::cout << killed << " kills, " << reads << " reads, " << client.counts().homes
            << " from homes\n";
  EXPECT_EQ(killed, 2 * kills);

  start_placer();
  lost->join();
  seen("kept", placer::HostState::kUp);
  seen("lost", placer::HostState::kUp);
  EXPECT_EQ(placer_->stores().ring().members().size(), 2U);
  const auto before = client.counts().homes;
  wait_until(
      [&] {
        EXPECT_EQ(fetch_all(client, extents, 0, 40).right, 40U);
        return client.counts().homes >= before + 40;
      },
      "reading from the homes again");
}

TEST_F(StoreFleetTest, NeighboursAreNamedByWhatTheyRead) {
  const auto host1 = lender("host1");
  const auto host2 = lender("host2");
  const auto host3 = lender("host3");
  bus::StoreRequest warm;
  warm.mutable_ask_warm()->set_version(std::string(64, 'a'));

  EXPECT_EQ(ask(*host1, warm).warm().hosts_size(), 0);
  const auto second = ask(*host2, warm).warm();
  const auto third = ask(*host3, warm).warm();
  const auto other = [&] {
    bus::StoreRequest cold;
    cold.mutable_ask_warm()->set_version(std::string(64, 'b'));
    return ask(*host3, cold).warm();
  }();

  ASSERT_EQ(second.hosts_size(), 1);
  EXPECT_EQ(second.hosts(0), "host1");
  ASSERT_EQ(third.hosts_size(), 2);
  EXPECT_EQ(third.hosts(0), "host2") << "who was named less often comes first";
  EXPECT_EQ(other.hosts_size(), 0);
}

TEST_F(StoreFleetTest, WhatIsReadMostGetsMoreHomes) {
  const auto host1 = lender("host1");
  ASSERT_TRUE(join("host1", ""));
  bus::StoreReport report;
  report.set_is_node(true);
  for (int i = 0; i < 40; ++i) {
    auto& extent = *report.add_hot();
    extent.set_name(std::string(32, static_cast<char>('A' + i)));
    extent.set_reads(i == 3 ? 10'000 : 5);
  }
  EXPECT_TRUE(placer_->stores().take_report("host1", report));
  EXPECT_FALSE(placer_->stores().take_report("host1", report)) << "nothing new";
  const auto message = placer_->stores().message();
  ASSERT_EQ(message.hot_size(), 1);
  EXPECT_EQ(message.hot(0), std::string(32, 'D'));
}

TEST_F(StoreFleetTest, StrangeRequestsAreRefusedAndTheConnectionClosed) {
  const auto host1 = lender("host1");
  SocketControl control(socket_of(*host1));
  bus::StoreRequest open;
  open.mutable_open_lease()->set_fabric("shm");
  const auto lease = control.call(open, imagestore::soon());
  ASSERT_TRUE(lease);
  bus::StoreRequest bogus;
  bogus.mutable_renew_lease()->set_lease(lease->reply.lease().lease() ^ 1U);
  bogus.mutable_renew_lease()->set_epoch(lease->reply.lease().epoch());

  EXPECT_EQ(control.call(bogus, imagestore::soon()).error().code(), Errc::kNotFound);
  EXPECT_EQ(control.call(open, imagestore::soon()).error().code(), Errc::kUnavailable)
      << "the connection was closed";
  bus::StoreRequest status;
  status.mutable_ask_status();
  EXPECT_EQ(ask(*host1, status).status().refused(), 1U);
  EXPECT_EQ(ask(*host1, status).status().leases(), 0U) << "and its lease with it";
}

}  // namespace
}  // namespace samepage
