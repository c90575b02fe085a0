// The promise under test, with store nodes in processes of their own: when nodes are lost (SIGKILL)
// in the middle of a storm, or the origin is away, clients read elsewhere; no read is wrong, and
// none fails as long as one home or the origin is left. When nobody is left a read says that it is
// worth another try, which is what a disk does.

#include <array>
#include <atomic>
#include <thread>

#include <gtest/gtest.h>
#include <sys/prctl.h>

#include "imagestore/store_control.h"
#include "imagestore/store_listener.h"
#include "tests/imagestore/killing.h"
#include "tests/imagestore/store_harness.h"

namespace samepage::imagestore {
namespace {

constexpr std::size_t kExtents = 96;
constexpr std::size_t kClients = 6;

/// A store node that other processes reach over the network's fabric.
class NodeProcess {
 public:
  NodeProcess(std::string name, std::string path, const DomainKeys& keys)
      : name_(std::move(name)), path_(std::move(path)), process_(::fork()) {
    if (process_ != 0) return;
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);
    const SystemClock clock;
    const auto node = StoreNode::create(small_node(true), {keys}, clock);
    if (!node) ::_exit(1);
    const auto listener = StoreListener::create({.path = path_}, **node);
    if (!listener) ::_exit(2);
    told_->ready = true;
    while (true) ::pause();
  }
  NodeProcess(const NodeProcess&) = delete;
  NodeProcess& operator=(const NodeProcess&) = delete;
  ~NodeProcess() { kill(); }

  void kill() {
    if (process_ < 0) return;
    ::kill(process_, SIGKILL);
    ::waitpid(process_, nullptr, 0);
    process_ = -1;
  }

  bool wait_ready() const {
    const Deadline give_up = soon();
    while (!told_->ready && std::chrono::steady_clock::now() < give_up) std::this_thread::yield();
    return told_->ready;
  }

  const std::string& name() const { return name_; }
  const std::string& path() const { return path_; }

 private:
  const Shared told_;
  const std::string name_;
  const std::string path_;
  pid_t process_;
};

/// An origin that can be away.
class SwitchedOrigin final : public ExtentSource {
 public:
  SwitchedOrigin(fakes::FakeOrigin& origin, const DomainKeys& keys, const std::atomic<bool>& away)
      : below_(origin, keys), away_(away) {}

  Result<void> start(std::span<const ExtentFetch> fetches) override {
    if (away_) return fail(Errc::kUnavailable, "the origin is away");
    return below_.start(fetches);
  }
  std::vector<FetchedExtent> poll(Deadline deadline) override { return below_.poll(deadline); }
  std::size_t under_way() const override { return below_.under_way(); }
  std::size_t fetches_max() const override { return below_.fetches_max(); }

 private:
  OriginExtents below_;
  const std::atomic<bool>& away_;
};

class OutageTest : public ::testing::Test {
 protected:
  /// Asks each node at its own socket, as an agent and the placer would pass it on.
  class Control final : public StoreControl {
   public:
    explicit Control(OutageTest& test) {
      for (const auto& node : test.nodes_) {
        sockets_.emplace(node->name(), std::make_unique<SocketControl>(node->path()));
      }
    }
    Result<StoreAnswer> call(const bus::StoreRequest& request, Deadline deadline) override {
      bus::StoreRequest passed = request;
      passed.clear_node();
      return sockets_.at(request.node())->call(passed, deadline);
    }

   private:
    std::map<std::string, std::unique_ptr<SocketControl>> sockets_;
  };

  /// A client with all that it borrows.
  struct Reader {
    explicit Reader(OutageTest& test)
        : below(test.extents_.origin),
          control(test),
          origin(below, test.extents_.keys, test.origin_is_away_),
          client({.keys = test.extents_.keys,
                  .has_own_node = false,
                  .keeper = {.call_max = std::chrono::seconds(5),
                             .pause_min = std::chrono::milliseconds(10)}},
                 control, &origin, test.clock_) {
      client.set_ring(test.ring_);
    }

    fakes::FakeOrigin below;
    Control control;
    SwitchedOrigin origin;
    StoreClient client;
  };

  OutageTest() {
    for (const char* name : {"a", "b", "c"}) {
      nodes_.push_back(std::make_unique<NodeProcess>(name, scratch_ / (name + std::string(".sock")),
                                                     extents_.keys));
      ring_ = *ring_.joined({.node = name, .weight = 1, .host = name, .rack = ""});
    }
    for (const auto& node : nodes_) EXPECT_TRUE(node->wait_ready()) << node->name();
  }

  /// Until every extent comes from a node.
  void fill() {
    Reader filler(*this);
    const Deadline give_up = soon();
    while (std::chrono::steady_clock::now() < give_up) {
      const auto before = filler.client.counts().origin;
      EXPECT_EQ(fetch_all(filler.client, extents_, 0, kExtents).right, kExtents);
      EXPECT_TRUE(filler.client.drain(soon()));
      if (filler.client.counts().origin == before) return;
    }
    ADD_FAILURE() << "the nodes do not fill";
  }

  const Scratch scratch_;
  Extents extents_{kExtents, 5};
  std::atomic<bool> origin_is_away_ = false;
  std::vector<std::unique_ptr<NodeProcess>> nodes_;
  Ring ring_;
  const SystemClock clock_;
};

TEST_F(OutageTest, ANodeThatIsLostInMidStormCostsNoRead) {
  fill();
  std::atomic<std::uint64_t> rounds = 0;
  std::atomic<std::uint64_t> bad = 0;
  std::atomic<std::uint64_t> from_homes = 0;
  std::atomic<bool> stop = false;
  {
    std::vector<std::jthread> storm;
    for (std::size_t i = 0; i < kClients; ++i) {
      storm.emplace_back([&] {
        Reader reader(*this);
        while (!stop) {
          const Fetched fetched = fetch_all(reader.client, extents_, 0, kExtents);
          bad += kExtents - fetched.right;
          ++rounds;
        }
        from_homes += reader.client.counts().homes;
      });
    }
    const auto wait_rounds = [&](std::uint64_t more) {
      const std::uint64_t until = rounds + more;
      const Deadline give_up = soon(std::chrono::seconds(60));
      while (rounds < until) {
        if (std::chrono::steady_clock::now() > give_up) return false;
        std::this_thread::sleep_for(std::chrono::milliseconds(1));
      }
      return true;
    };
    EXPECT_TRUE(wait_rounds(5 * kClients));
    nodes_[1]->kill();
    EXPECT_TRUE(wait_rounds(5 * kClients));
    nodes_[2]->kill();
    EXPECT_TRUE(wait_rounds(5 * kClients));
    stop = true;
  }
  std::cout << rounds * kExtents << " reads, " << from_homes << " from nodes, " << bad << " bad\n";
  EXPECT_EQ(bad, 0U);
  EXPECT_GT(from_homes, 0U);
}

TEST_F(OutageTest, NodesServeWhileTheOriginIsAwayAndNobodyLeftIsSaid) {
  fill();
  nodes_[1]->kill();
  fill();  // What it had is in its stand-ins now.
  Reader reader(*this);
  // The leases of both that are left.
  const Deadline give_up = soon();
  std::uint64_t before = 0;
  do {
    before = reader.client.counts().origin;
    EXPECT_EQ(fetch_all(reader.client, extents_, 0, kExtents).right, kExtents);
  } while (reader.client.counts().origin > before && std::chrono::steady_clock::now() < give_up);
  origin_is_away_ = true;

  EXPECT_EQ(fetch_all(reader.client, extents_, 0, kExtents).right, kExtents);

  nodes_[0]->kill();
  nodes_[2]->kill();
  const Fetched none = fetch_all(reader.client, extents_, 0, kExtents);
  EXPECT_EQ(none.wrong, 0U);
  EXPECT_EQ(none.right, 0U);
  for (const Errc code : none.errors) EXPECT_EQ(code, Errc::kUnavailable);
  origin_is_away_ = false;
  EXPECT_EQ(fetch_all(reader.client, extents_, 0, kExtents).right, kExtents);
}

}  // namespace
}  // namespace samepage::imagestore
