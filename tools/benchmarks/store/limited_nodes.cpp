#include "tools/benchmarks/store/limited_nodes.h"

#include <algorithm>
#include <atomic>
#include <deque>
#include <map>
#include <mutex>
#include <random>
#include <thread>

#include <nlohmann/json.hpp>

#include "imagestore/ring.h"
#include "imagestore/store_node.h"

namespace samepage::bench {
namespace {

using namespace imagestore;  // NOLINT(google-build-using-namespace): this file is about nothing
                             // else.
using SteadyClock = std::chrono::steady_clock;
using std::chrono_literals::operator""ms;
using std::chrono_literals::operator""s;

/// A node's line: what is asked of it is sent one after the other at its rate.
class TokenBucket {
 public:
  explicit TokenBucket(double bytes_per_s) : bytes_per_s_(bytes_per_s) {}

  /// When `bytes` more will have been sent.
  SteadyClock::time_point take(std::size_t bytes) {
    const std::lock_guard lock(mutex_);
    const auto time = std::chrono::duration_cast<SteadyClock::duration>(
        std::chrono::duration<double>(static_cast<double>(bytes) / bytes_per_s_));
    free_at_ = std::max(free_at_, SteadyClock::now()) + time;
    return free_at_;
  }

 private:
  const double bytes_per_s_;
  std::mutex mutex_;
  SteadyClock::time_point free_at_;
};

/// Memory behind a token bucket.
class LimitedMemory final : public RemoteMemory {
 public:
  LimitedMemory(std::unique_ptr<RemoteMemory> memory, TokenBucket& bucket)
      : RemoteMemory(memory->bytes()), memory_(std::move(memory)), bucket_(bucket) {}

  Result<void> read_batch(std::span<const RemoteRead> reads) override {
    TRY(memory_->read_batch(reads));
    for (const RemoteRead& read : reads) {
      coming_.emplace(read.tag, bucket_.take(read.into.size()));
    }
    return {};
  }
  Result<void> write_batch(std::span<const RemoteWrite> writes) override {
    return memory_->write_batch(writes);
  }
  void poll(std::vector<RemoteDone>& done, Deadline deadline) override {
    std::vector<RemoteDone> ended;
    memory_->poll(ended, Deadline::min());
    for (RemoteDone& one : ended) {
      const auto due = coming_.find(one.tag);
      const auto at = due == coming_.end() ? SteadyClock::now() : due->second;
      if (due != coming_.end()) coming_.erase(due);
      held_.emplace_back(at, std::move(one));
    }
    std::ranges::stable_sort(held_, {}, [](const auto& entry) { return entry.first; });
    if (held_.empty()) return;
    std::this_thread::sleep_until(std::min<SteadyClock::time_point>(held_.front().first, deadline));
    const auto now = SteadyClock::now();
    while (!held_.empty() && held_.front().first <= now) {
      done.push_back(std::move(held_.front().second));
      held_.pop_front();
    }
  }
  std::size_t under_way() const override { return held_.size() + memory_->under_way(); }
  std::size_t operations_max() const override { return memory_->operations_max() / 2; }
  bool is_usable() const override { return memory_->is_usable(); }
  void extend(Deadline expires) override { memory_->extend(expires); }
  bool is_local() const override { return false; }

 private:
  std::unique_ptr<RemoteMemory> memory_;
  TokenBucket& bucket_;
  std::multimap<std::uint64_t, SteadyClock::time_point> coming_;
  std::deque<std::pair<SteadyClock::time_point, RemoteDone>> held_;
};

/// Nodes in this process, each behind its bucket. Shared memory stands in for the fabric between
/// hosts, which a ticket cannot tell: the node's name travels as its endpoint.
class LimitedFleet final : public StoreService {
 public:
  LimitedFleet(const LimitedOptions& options, const DomainKeys& keys)
      : options_(options), keys_(keys) {}

  Result<void> add(const std::string& name) {
    StoreNode::Options options;
    options.arena.data_bytes = 192U << 20U;
    options.lease_time = std::chrono::minutes(2);
    auto node = TRY(StoreNode::create(options, {keys_}, clock_));
    const std::lock_guard lock(mutex_);
    nodes_[name] = std::move(node);
    buckets_[name] = std::make_unique<TokenBucket>(options_.bytes_per_s);
    ring_ = TRY(ring_.joined({.node = name, .weight = 1, .host = name, .rack = ""}));
    return {};
  }

  Result<void> leave(const std::string& name) {
    const std::lock_guard lock(mutex_);
    ring_ = TRY(ring_.left(name));
    return {};
  }

  Ring ring() {
    const std::lock_guard lock(mutex_);
    return ring_;
  }

  Result<StoreAnswer> serve(const StoreCaller& caller, const bus::StoreRequest& request) override {
    StoreNode* node = nullptr;
    {
      const std::lock_guard lock(mutex_);
      const auto found = nodes_.find(request.node());
      if (found == nodes_.end()) return fail(Errc::kUnavailable, "no such node");
      node = found->second.get();
    }
    bus::StoreRequest local = request;
    if (local.has_open_lease()) local.mutable_open_lease()->set_fabric("shm");
    auto answer = node->serve(caller, local);
    if (answer && answer->reply.has_lease()) {
      answer->reply.mutable_lease()->mutable_ticket()->set_endpoint(request.node());
    }
    return answer;
  }
  void forget(const StoreCaller& caller) override {
    const std::lock_guard lock(mutex_);
    for (const auto& [name, node] : nodes_) node->forget(caller);
  }

  Result<std::unique_ptr<RemoteMemory>> open(FabricTicket ticket, FabricAccess access,
                                             Deadline expires) {
    const std::string node = ticket.endpoint;
    auto memory = TRY(open_remote(std::move(ticket), access, expires, clock_));
    if (node.empty()) return memory;
    const std::lock_guard lock(mutex_);
    return std::make_unique<LimitedMemory>(std::move(memory), *buckets_.at(node));
  }

 private:
  const LimitedOptions options_;
  const DomainKeys keys_;
  const SystemClock clock_;
  std::mutex mutex_;
  std::map<std::string, std::unique_ptr<StoreNode>> nodes_;
  std::map<std::string, std::unique_ptr<TokenBucket>> buckets_;
  Ring ring_;
};

/// What all clients did.
struct Sums {
  std::atomic<std::uint64_t> bytes = 0;
  std::atomic<std::uint64_t> failed = 0;
  std::atomic<bool> counting = false;
  std::atomic<bool> stop = false;
};

class LimitedClient {
 public:
  LimitedClient(LimitedFleet& fleet, const ExtentMap& map, ExtentSource* origin, std::size_t number)
      : fleet_(fleet),
        map_(map),
        control_(fleet, "client " + std::to_string(number)),
        client_({.keys = map.keys(),
                 .has_own_node = false,
                 .fetches_max = 64,
                 .keeper = {.upload_bytes_max = 256U << 20U},
                 .open =
                     [&fleet](FabricTicket ticket, FabricAccess access, Deadline expires) {
                       return fleet.open(std::move(ticket), access, expires);
                     }},
                control_, origin, clock_),
        random_(number) {
    for (std::size_t i = 0; i < kDepth; ++i) buffers_.push_back(ExtentBuffer::create());
  }

  Result<void> fill(std::vector<ObjectName> names) {
    const auto deadline = SteadyClock::now() + std::chrono::minutes(2);
    client_.set_ring(fleet_.ring());
    TRY(client_.wait_for_nodes(deadline));
    Sums sums;
    // Twice: at first some nodes may not have been there yet.
    for (int round = 0; round < 2; ++round) {
      std::this_thread::sleep_for(300ms);
      read(names, sums, false);
      TRY(client_.drain(deadline));
    }
    return {};
  }

  void run(std::vector<ObjectName> names, Sums& sums) {
    client_.set_ring(fleet_.ring());
    if (!client_.wait_for_nodes(SteadyClock::now() + std::chrono::minutes(1))) ++sums.failed;
    while (!sums.stop) {
      std::ranges::shuffle(names, random_);
      read(names, sums, true);
    }
  }

 private:
  static constexpr std::size_t kDepth = 16;

  void read(const std::vector<ObjectName>& names, Sums& sums, bool stoppable) {
    std::vector<std::size_t> idle(kDepth);
    for (std::size_t i = 0; i < kDepth; ++i) idle[i] = i;
    std::vector<std::size_t> position(kDepth);
    std::size_t next = 0;
    std::size_t ended = 0;
    std::size_t begun = 0;
    while (ended < begun || (next < names.size() && !(stoppable && sums.stop))) {
      if (auto ring = fleet_.ring(); ring.version() != ring_version_) {
        ring_version_ = ring.version();
        client_.set_ring(ring);
      }
      std::vector<ExtentFetch> fetches;
      for (; next < names.size() && !idle.empty() && !(stoppable && sums.stop); ++next, ++begun) {
        const std::size_t slot = idle.back();
        idle.pop_back();
        position[slot] = next;
        fetches.push_back({.tag = slot, .name = names[next], .into = buffers_[slot].get()});
      }
      if (!client_.start(fetches)) ++sums.failed;
      for (const auto& one : client_.poll(SteadyClock::now() + 100ms)) {
        ++ended;
        idle.push_back(one.tag);
        const bool is_good =
            one.result && map_.is_true(names[position[one.tag]], *buffers_[one.tag], ended);
        if (!is_good) {
          ++sums.failed;
        } else if (sums.counting) {
          sums.bytes += buffers_[one.tag]->pages().size();
        }
      }
    }
  }

  LimitedFleet& fleet_;
  const ExtentMap& map_;
  const SystemClock clock_;
  DirectControl control_;
  StoreClient client_;
  std::mt19937_64 random_;
  std::uint64_t ring_version_ = 0;
  std::vector<std::unique_ptr<ExtentBuffer>> buffers_;
};

}  // namespace

Result<nlohmann::json> run_limited(const LimitedOptions& options, const ExtentMap& map,
                                   std::span<const Chunk> chunks,
                                   const ImageStore::Options& store_options) {
  LimitedFleet fleet(options, map.keys());
  for (std::size_t i = 0; i < options.nodes; ++i) TRY(fleet.add("node" + std::to_string(i)));
  const auto names = map.extents(chunks, true);
  {
    const auto store = TRY(ImageStore::open(store_options));
    OriginExtents origin(store->origin(), map.keys());
    TRY(LimitedClient(fleet, map, &origin, 0).fill(names));
  }
  Sums sums;
  double moved_share = 0;
  double seconds = 0;
  {
    std::vector<std::jthread> threads;
    for (std::size_t i = 1; i <= options.clients; ++i) {
      threads.emplace_back([&, i] {
        // With an origin of its own where nodes come and go: what a new node lacks is there.
        std::unique_ptr<ImageStore> store;
        std::unique_ptr<OriginExtents> origin;
        if (options.changes) {
          store = std::move(ImageStore::open(store_options)).value();
          origin = std::make_unique<OriginExtents>(store->origin(), map.keys());
        }
        LimitedClient(fleet, map, origin.get(), i).run(names, sums);
      });
    }
    std::this_thread::sleep_for(1s);
    const auto start = SteadyClock::now();
    sums.counting = true;
    const std::chrono::duration<double> part(options.seconds / 3);
    std::this_thread::sleep_for(part);
    if (options.changes) {
      const Ring before = fleet.ring();
      TRY(fleet.add("newcomer"));
      const Ring joined = fleet.ring();
      std::this_thread::sleep_for(part);
      TRY(fleet.leave("node0"));
      const Ring left = fleet.ring();
      const auto share = [](std::size_t moved) {
        return static_cast<double>(moved) / static_cast<double>(Ring::kSlots);
      };
      moved_share = std::max(share(joined.moved_from(before)), share(left.moved_from(joined)));
    } else {
      std::this_thread::sleep_for(part);
    }
    std::this_thread::sleep_for(part);
    sums.counting = false;
    seconds = std::chrono::duration<double>(SteadyClock::now() - start).count();
    sums.stop = true;
  }
  const double rate = static_cast<double>(sums.bytes) / seconds / 1e9;
  return nlohmann::json{{"path", "limited"},
                        {"case", options.changes ? "join and leave" : "nodes"},
                        {"nodes", options.nodes},
                        {"clients", options.clients},
                        {"seconds", seconds},
                        {"bytes_fetched", sums.bytes.load()},
                        {"gb_s", rate},
                        {"node_gb_s_max", options.bytes_per_s / 1e9},
                        {"moved_share", moved_share},
                        {"failed", sums.failed.load()}};
}

}  // namespace samepage::bench
