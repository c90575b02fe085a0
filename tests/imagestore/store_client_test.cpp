// The promise under test: a client finds an extent in its own store, at its homes, at neighbours or
// in the origin, in this order; fills what lacked it; and neither damage nor the loss of nodes nor
// an eviction makes it deliver a wrong or no extent while one good copy is left.

#include <filesystem>

#include <gtest/gtest.h>

#include "imagestore/store_listener.h"
#include "imagestore/store_socket.h"
#include "tests/imagestore/store_harness.h"

namespace samepage::imagestore {
namespace {

class StoreClientTest : public testing::Test {
 protected:
  /// A client with what it borrows, in the order in which they come apart.
  struct Reader {
    std::unique_ptr<DirectControl> control;
    std::unique_ptr<OriginExtents> origin;
    std::unique_ptr<StoreClient> client;

    StoreClient* operator->() const { return client.get(); }
    StoreClient& operator*() const { return *client; }
  };

  Reader client(Nodes& nodes, Extents& extents, bool has_own = true) {
    Reader reader;
    reader.control = std::make_unique<DirectControl>(nodes, "test" + std::to_string(next_++));
    reader.origin = std::make_unique<OriginExtents>(extents.origin, extents.keys);
    StoreClient::Options options{.keys = extents.keys};
    options.own_node = "a";
    options.has_own_node = has_own;
    options.keeper.pause_min = std::chrono::milliseconds(20);
    options.keeper.call_max = std::chrono::seconds(5);
    reader.client =
        std::make_unique<StoreClient>(options, *reader.control, reader.origin.get(), clock_);
    return reader;
  }

  static Ring ring_of(const std::vector<std::string>& names) {
    Ring ring;
    for (const std::string& name : names) {
      ring = *ring.joined({.node = name, .weight = 1, .host = name, .rack = ""});
    }
    return ring;
  }

  const SystemClock clock_;
  int next_ = 0;
};

TEST_F(StoreClientTest, FillsItsOwnStoreAndReadsItWithoutTheOrigin) {
  Extents extents(200, 1);
  Nodes nodes("a");
  nodes.add("a", small_node(), extents.keys);
  const auto first = client(nodes, extents);
  ASSERT_TRUE(first->wait_for_node(soon()));
  EXPECT_EQ(fetch_all(*first, extents, 0, 200).right, 200U);
  EXPECT_EQ(first->counts().origin, 200U);
  ASSERT_TRUE(first->drain(soon()));
  EXPECT_EQ(nodes.at("a").report().extents(), 200U);

  const auto second = client(nodes, extents);
  ASSERT_TRUE(second->wait_for_node(soon()));
  EXPECT_EQ(fetch_all(*second, extents, 0, 200).right, 200U);
  EXPECT_EQ(second->counts().own, 200U);
  EXPECT_EQ(second->counts().origin, 0U);
}

TEST_F(StoreClientTest, ReadsHomesOverTheFabricAndOutlivesTheirLoss) {
  Extents extents(120, 2);
  Nodes nodes("a");
  for (const char* name : {"a", "b", "c"}) nodes.add(name, small_node(true), extents.keys);
  const auto writer = client(nodes, extents, false);
  writer->set_ring(ring_of({"b", "c"}));
  ASSERT_TRUE(writer->wait_for_node(soon()));
  EXPECT_EQ(fetch_all(*writer, extents, 0, 120).right, 120U);
  ASSERT_TRUE(writer->drain(soon()));
  EXPECT_GT(nodes.at("b").report().extents(), 20U);
  EXPECT_GT(nodes.at("c").report().extents(), 20U);

  const auto reader = client(nodes, extents, false);
  reader->set_ring(ring_of({"b", "c"}));
  ASSERT_TRUE(reader->wait_for_node(soon()));
  EXPECT_EQ(fetch_all(*reader, extents, 0, 60).right, 60U);
  nodes.lose("b");
  EXPECT_EQ(fetch_all(*reader, extents, 0, 120).right, 120U);
  EXPECT_GT(reader->counts().homes, 60U);
}

TEST_F(StoreClientTest, ANeighbourServesWhatTheOriginCannot) {
  Extents extents(30, 3);
  Nodes nodes("a");
  nodes.add("a", small_node(true), extents.keys);
  nodes.add("n", small_node(true), extents.keys);
  const auto writer = client(nodes, extents, false);
  writer->set_ring(ring_of({"n"}));
  ASSERT_TRUE(writer->wait_for_node(soon()));
  EXPECT_EQ(fetch_all(*writer, extents, 0, 30).right, 30U);
  ASSERT_TRUE(writer->drain(soon()));

  extents.origin.objects.clear();
  const auto reader = client(nodes, extents);
  reader->set_neighbours({"n", "gone"});
  ASSERT_TRUE(reader->wait_for_node(soon()));
  // The lease of the neighbour may come later than that of the own node.
  while (reader->counts().neighbours == 0) {
    const auto tried = fetch_all(*reader, extents, 0, 1);
    ASSERT_EQ(tried.wrong, 0U);
  }
  EXPECT_EQ(fetch_all(*reader, extents, 0, 30).right, 30U);
  ASSERT_TRUE(reader->drain(soon()));
  EXPECT_EQ(nodes.at("a").report().extents(), 30U);
}

TEST_F(StoreClientTest, SaysWhyThereIsNoExtent) {
  Extents extents(1, 4);
  Nodes nodes("a");
  nodes.add("a", small_node(), extents.keys);
  const auto reader = client(nodes, extents);
  ASSERT_TRUE(reader->wait_for_node(soon()));
  extents.origin.objects.clear();
  auto fetched = fetch_all(*reader, extents, 0, 1);
  ASSERT_EQ(fetched.failed, 1U);
  EXPECT_EQ(fetched.errors[0], Errc::kNotFound);

  DirectControl control(nodes, "alone");
  StoreClient::Options options{.keys = extents.keys};
  StoreClient alone(options, control, nullptr, clock_);
  ASSERT_TRUE(alone.wait_for_node(soon()));
  fetched = fetch_all(alone, extents, 0, 1);
  ASSERT_EQ(fetched.failed, 1U);
  EXPECT_EQ(fetched.errors[0], Errc::kNotFound);
  nodes.at("a").revoke_all();
  nodes.lose("a");
  fetched = fetch_all(alone, extents, 0, 1);
  ASSERT_EQ(fetched.failed, 1U);
  EXPECT_EQ(fetched.errors[0], Errc::kUnavailable);
  EXPECT_FALSE(alone.start(std::vector<ExtentFetch>(alone.fetches_max() + 1)));
}

TEST_F(StoreClientTest, SurvivesEvictionUnderItsReads) {
  // More extents than the arena holds, read twice over by two clients while it turns over.
  Extents extents(600, 5);
  Nodes nodes("a");
  nodes.add("a", small_node(), extents.keys);
  const auto one = client(nodes, extents);
  const auto two = client(nodes, extents);
  ASSERT_TRUE(one->wait_for_node(soon()));
  ASSERT_TRUE(two->wait_for_node(soon()));
  for (std::size_t at = 0; at < 600; at += 50) {
    EXPECT_EQ(fetch_all(*one, extents, at, at + 50).right, 50U);
    EXPECT_EQ(fetch_all(*two, extents, 600 - at - 50, 600 - at).right, 50U);
  }
  ASSERT_TRUE(one->drain(soon()));
  ASSERT_TRUE(two->drain(soon()));
  EXPECT_GT(nodes.at("a").report().evicted(), 0U);
  EXPECT_LE(nodes.at("a").report().extent_bytes(), 16U << 20U);
}

TEST_F(StoreClientTest, ARevokedLeaseIsReplacedAndReadsGoOn) {
  Extents extents(50, 6);
  Nodes nodes("a");
  nodes.add("a", small_node(), extents.keys);
  const auto reader = client(nodes, extents);
  ASSERT_TRUE(reader->wait_for_node(soon()));
  EXPECT_EQ(fetch_all(*reader, extents, 0, 50).right, 50U);
  ASSERT_TRUE(reader->drain(soon()));
  nodes.at("a").revoke_all();
  EXPECT_EQ(fetch_all(*reader, extents, 0, 50).right, 50U);
  ASSERT_TRUE(reader->wait_for_node(soon()));
  const auto own = reader->counts().own;
  EXPECT_EQ(fetch_all(*reader, extents, 0, 50).right, 50U);
  EXPECT_EQ(reader->counts().own, own + 50);
}

TEST_F(StoreClientTest, FlippedBitsInArenaAndIndexAreNeverServedAndHeal) {
  const char* repeats = std::getenv("SAMEPAGE_REPEATS");  // NOLINT(concurrency-mt-unsafe)
  const std::size_t flips = repeats != nullptr ? std::stoul(repeats) * 100 : 2'000;
  std::mt19937_64 random(test_seed());
  Extents extents(64, 7);
  Nodes nodes("a");
  StoreNode& node = nodes.add("a", small_node(), extents.keys);
  const auto reader = client(nodes, extents);
  ASSERT_TRUE(reader->wait_for_node(soon()));
  EXPECT_EQ(fetch_all(*reader, extents, 0, 64).right, 64U);
  ASSERT_TRUE(reader->drain(soon()));

  const auto geometry = *decode_geometry(node.memory());
  const std::uint64_t filled = 64 * (extents.origin.objects.begin()->second.size() + 4096);
  for (std::size_t done = 0; done < flips; done += 50) {
    for (std::size_t i = 0; i < 50; ++i) {
      const bool in_index = i % 5 == 0;
      const std::uint64_t at =
          in_index ? geometry.index_offset + random() % (geometry.buckets * kBucketBytes)
                   : geometry.data_offset + random() % filled;
      node.memory()[at] ^= static_cast<std::byte>(1U << random() % 8);
    }
    const auto fetched = fetch_all(*reader, extents, 0, 64);
    ASSERT_EQ(fetched.wrong, 0U);
    ASSERT_EQ(fetched.right, 64U);
    ASSERT_TRUE(reader->drain(soon()));
  }
  EXPECT_GT(reader->counts().failed_checks, 0U);
  // Healed: what is in the index now is read without the origin.
  fetch_all(*reader, extents, 0, 64);
  ASSERT_TRUE(reader->drain(soon()));
  const auto before = reader->counts();
  EXPECT_EQ(fetch_all(*reader, extents, 0, 64).right, 64U);
  EXPECT_EQ(reader->counts().own, before.own + 64);
}

/// A remote memory whose wire flips bits.
class NoisyMemory final : public RemoteMemory {
 public:
  NoisyMemory(std::unique_ptr<RemoteMemory> below, std::uint64_t seed, std::uint64_t& flips)
      : RemoteMemory(below->bytes()), below_(std::move(below)), random_(seed), flips_(flips) {}

  Result<void> read_batch(std::span<const RemoteRead> reads) override {
    TRY(below_->read_batch(reads));
    for (const RemoteRead& read : reads) into_.push_back(read.into);
    return {};
  }
  Result<void> write_batch(std::span<const RemoteWrite> writes) override {
    return below_->write_batch(writes);
  }
  void poll(std::vector<RemoteDone>& done, Deadline deadline) override {
    below_->poll(done, deadline);
    // Only over a fabric that ends everything in one poll is `into_` in step with `done`.
    for (const auto into : into_) {
      if (into.size() > kBucketBytes && random_() % 2 == 0) continue;
      into[random_() % into.size()] ^= static_cast<std::byte>(1U << random_() % 8);
      ++flips_;
    }
    into_.clear();
  }
  std::size_t under_way() const override { return below_->under_way(); }
  std::size_t operations_max() const override { return below_->operations_max(); }
  bool is_usable() const override { return below_->is_usable(); }
  void extend(Deadline expires) override { below_->extend(expires); }
  bool is_local() const override { return true; }

 private:
  std::unique_ptr<RemoteMemory> below_;
  std::mt19937_64 random_;
  std::uint64_t& flips_;
  std::vector<std::span<std::byte>> into_;
};

TEST_F(StoreClientTest, FlippedBitsOnTheWireAreNeverServed) {
  const char* repeats = std::getenv("SAMEPAGE_REPEATS");  // NOLINT(concurrency-mt-unsafe)
  const std::uint64_t wanted = repeats != nullptr ? std::stoul(repeats) * 100 : 2'000;
  Extents extents(64, 8);
  Nodes nodes("a");
  nodes.add("a", small_node(), extents.keys);
  const auto filler = client(nodes, extents);
  ASSERT_TRUE(filler->wait_for_node(soon()));
  EXPECT_EQ(fetch_all(*filler, extents, 0, 64).right, 64U);
  ASSERT_TRUE(filler->drain(soon()));

  std::uint64_t flips = 0;
  const std::uint64_t seed = test_seed();
  DirectControl control(nodes, "noisy");
  OriginExtents origin(extents.origin, extents.keys);
  StoreClient::Options options{.keys = extents.keys};
  options.open = [&](FabricTicket ticket, FabricAccess access,
                     Deadline expires) -> Result<std::unique_ptr<RemoteMemory>> {
    auto memory = TRY(open_remote(std::move(ticket), access, expires, clock_));
    if (access == FabricAccess::kWrite) return memory;
    // The header is read in the clear, or there would be nothing to test.
    std::unique_ptr<RemoteMemory> noisy =
        std::make_unique<NoisyMemory>(std::move(memory), seed, flips);
    return noisy;
  };
  StoreClient reader(options, control, &origin, clock_);
  static_cast<void>(reader.wait_for_node(soon(std::chrono::milliseconds(300))));
  while (flips < wanted) {
    const auto fetched = fetch_all(reader, extents, 0, 64);
    ASSERT_EQ(fetched.wrong, 0U);
    ASSERT_EQ(fetched.right, 64U);
  }
}

TEST_F(StoreClientTest, WorksThroughTheSocketAndIsForgottenWithIt) {
  Extents extents(40, 9);
  const Scratch scratch;
  const std::string path = (scratch / "store.sock").string();
  auto node = StoreNode::create(small_node(), {extents.keys}, clock_);
  ASSERT_TRUE(node);
  const auto listener = StoreListener::create({.path = path}, **node);
  ASSERT_TRUE(listener) << listener.error().message();
  OriginExtents origin(extents.origin, extents.keys);
  {
    SocketControl control(path);
    StoreClient reader({.keys = extents.keys}, control, &origin, clock_);
    ASSERT_TRUE(reader.wait_for_node(soon()));
    EXPECT_EQ(fetch_all(reader, extents, 0, 40).right, 40U);
    ASSERT_TRUE(reader.drain(soon()));
    EXPECT_EQ((*node)->report().leases(), 1U);
  }
  const Deadline deadline = soon();
  while ((*node)->report().leases() > 0) ASSERT_LT(std::chrono::steady_clock::now(), deadline);
  EXPECT_EQ((*node)->report().extents(), 40U);
}

TEST_F(StoreClientTest, BogusRequestsAreRefusedAndTheConnectionEnds) {
  Extents extents(1, 10);
  const Scratch scratch;
  const std::string path = (scratch / "store.sock").string();
  auto node = StoreNode::create(small_node(), {extents.keys}, clock_);
  ASSERT_TRUE(node);
  const auto listener = StoreListener::create({.path = path}, **node);
  ASSERT_TRUE(listener);
  SocketControl honest(path);
  bus::StoreRequest opening;
  opening.mutable_open_lease()->set_fabric("shm");
  const auto lease = honest.call(opening, soon());
  ASSERT_TRUE(lease);
  const std::uint64_t stolen = lease->reply.lease().lease();

  std::vector<bus::StoreRequest> bogus(5);
  bogus[1].mutable_renew_lease()->set_lease(4711);
  bogus[2].mutable_open_lease()->set_fabric("pigeon");
  bogus[3].mutable_close_lease()->set_lease(stolen);  // Another caller's.
  bogus[4].mutable_publish()->set_lease(stolen);
  for (const bus::StoreRequest& request : bogus) {
    const auto socket = connect_store(path);
    ASSERT_TRUE(socket);
    const std::string bytes = request.node() + request.SerializeAsString() + "\xFF";
    const bool is_garbage = &request == bogus.data();
    const auto sent = send_frame(
        socket->get(), std::as_bytes(std::span(is_garbage ? bytes : request.SerializeAsString())),
        -1, soon());
    ASSERT_TRUE(sent);
    const auto frame = receive_frame(socket->get(), soon());
    ASSERT_TRUE(frame);
    const auto reply = parse_store_reply(frame->bytes);
    ASSERT_TRUE(reply);
    EXPECT_TRUE(reply->has_failure());
    const auto end = receive_frame(socket->get(), soon());
    ASSERT_FALSE(end);
    EXPECT_EQ(end.error().code(), Errc::kUnavailable);
  }
  EXPECT_GE((*node)->report().refused(), 4U);
  bus::StoreRequest renewal;
  renewal.mutable_renew_lease()->set_lease(stolen);
  renewal.mutable_renew_lease()->set_epoch(1);
  EXPECT_TRUE(honest.call(renewal, soon()));
}

}  // namespace
}  // namespace samepage::imagestore
