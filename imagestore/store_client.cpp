#include "imagestore/store_client.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <thread>
#include <utility>

#include "core/check.h"

namespace samepage::imagestore {
namespace {

// How often leases are looked at while nothing is amiss.
constexpr auto kRefreshEvery = std::chrono::milliseconds(20);
constexpr auto kNap = std::chrono::microseconds(200);
constexpr std::size_t kReadsKept = 65'536;
constexpr int kReadsMax = 3;  // Of one extent from one node, when checks fail.

// A read's tag: the fetch's slot and which part of it.
enum Part : std::uint64_t { kFirstBucket = 0, kSecondBucket = 1, kObject = 2, kParts = 4 };

}  // namespace

/// A store node as this client sees it.
struct StoreClient::Node {
  std::string name;
  std::unique_ptr<RemoteMemory> memory;  ///< None: no lease now.
  std::optional<ArenaGeometry> geometry;
  std::unordered_map<ObjectName, IndexEntry> known;  ///< Only of a node that is not local.
  std::vector<RemoteRead> outbox;
  std::vector<RemoteDone> done;
  std::unordered_set<Fetch*> fetches;  ///< That wait for this node.
};

struct StoreClient::Fetch {
  enum class Stage : std::uint8_t { kIdle, kBuckets, kObject, kOrigin };

  std::size_t slot = 0;
  Stage stage = Stage::kIdle;
  ExtentFetch ask;
  std::vector<std::pair<Node*, Role>> candidates;
  std::size_t next = 0;  ///< The candidate after `node`.
  Node* node = nullptr;
  Role role = Role::kOwn;
  std::vector<std::string> lacking;  ///< Nodes that should have it and have not.
  bool knew_entry = false;           ///< The entry is a remembered one.
  int reads = 0;
  std::size_t parts_waiting = 0;
  IndexEntry entry;
  alignas(64) std::array<std::byte, 2 * kBucketBytes> buckets;
  std::vector<std::byte> packed;  ///< Room for a compressed object.
};

StoreClient::StoreClient(Options options, StoreControl& control, ExtentSource* origin,
                         const Clock& clock)
    : options_(std::move(options)),
      clock_(clock),
      origin_(origin),
      open_(
          options_.open
              ? options_.open
              : [&clock](
                    FabricTicket ticket, FabricAccess access,
                    Deadline
                        expires) { return open_remote(std::move(ticket), access, expires, clock); }),
      own_name_(options_.own_node),
      random_(std::random_device()()),
      keeper_(options_.keeper, control, clock, open_) {
  for (std::size_t slot = 0; slot < options_.fetches_max; ++slot) {
    fetches_.push_back(std::make_unique<Fetch>());
    fetches_.back()->slot = slot;
    free_.push_back(fetches_.back().get());
  }
  if (options_.has_own_node) own_ = &node_of("", "shm");
}

StoreClient::~StoreClient() = default;

StoreClient::Node& StoreClient::node_of(const std::string& name, const std::string& fabric) {
  auto& node = nodes_[name];
  if (node == nullptr) {
    node = std::make_unique<Node>();
    node->name = name;
    keeper_.keep({.node = name, .fabric = fabric});
  }
  return *node;
}

void StoreClient::set_ring(const Ring& ring) {
  ring_ = ring;
  members_.clear();
  for (const RingMember& member : ring.members()) {
    const bool is_own = own_ != nullptr && member.node == own_name_;
    members_.push_back(is_own ? own_ : &node_of(member.node, "ofi"));
  }
  prune_nodes();
}

void StoreClient::set_neighbours(const std::vector<std::string>& nodes) {
  neighbours_.clear();
  for (const std::string& name : nodes) {
    if (name != own_name_) neighbours_.push_back(&node_of(name, "ofi"));
  }
  prune_nodes();
}

void StoreClient::prune_nodes() {
  for (auto at = nodes_.begin(); at != nodes_.end();) {
    Node* const node = at->second.get();
    const bool is_needed = node == own_ || std::ranges::count(members_, node) > 0 ||
                           std::ranges::count(neighbours_, node) > 0;
    if (is_needed) {
      ++at;
      continue;
    }
    keeper_.drop(node->name);
    break_node(*node);
    for (const auto& fetch : fetches_) {
      std::erase_if(fetch->candidates, [&](const auto& candidate) {
        const auto position = static_cast<std::size_t>(&candidate - fetch->candidates.data());
        return candidate.first == node && position >= fetch->next;
      });
    }
    at = nodes_.erase(at);
  }
}

Result<void> StoreClient::start(std::span<const ExtentFetch> fetches) {
  if (fetches.size() > free_.size()) {
    return fail(Errc::kUnavailable, "too many extents are being fetched");
  }
  for (const ExtentFetch& ask : fetches) begin(ask);
  for (const auto& [name, node] : nodes_) flush(*node);
  return {};
}

void StoreClient::begin(const ExtentFetch& ask) {
  Fetch& fetch = *free_.back();
  free_.pop_back();
  ++busy_;
  ask.into->clear();
  fetch.ask = ask;
  fetch.candidates = candidates(ask.name);
  fetch.next = 0;
  fetch.lacking.clear();
  if (reads_.size() < kReadsKept || reads_.contains(ask.name)) ++reads_[ask.name];
  try_next(fetch);
}

std::vector<std::pair<StoreClient::Node*, StoreClient::Role>> StoreClient::candidates(
    const ObjectName& name) {
  std::vector<std::pair<Node*, Role>> all;
  const auto add = [&](Node* node, Role role) {
    const bool is_there =
        std::ranges::any_of(all, [&](const auto& known) { return known.first == node; });
    if (!is_there) all.emplace_back(node, role);
  };
  if (own_ != nullptr) add(own_, Role::kOwn);
  // A second home stands in when the first is lost, and takes its share when the extent is hot.
  const std::size_t count = hot_.contains(name) ? options_.homes_when_hot : 2;
  std::vector<Node*> homes;
  for (const std::size_t home : ring_.homes(name, count)) homes.push_back(members_[home]);
  order_homes(homes, hot_.contains(name));
  for (Node* home : homes) add(home, Role::kHome);
  for (Node* neighbour : neighbours_) add(neighbour, Role::kNeighbour);
  return all;
}

void StoreClient::order_homes(std::vector<Node*>& homes, bool are_hot) {
  if (homes.size() < 2) return;
  const auto load = [](const Node* node) { return node->fetches.size(); };
  if (are_hot) {
    std::ranges::shuffle(homes, random_);
    if (load(homes[1]) < load(homes[0])) std::swap(homes[0], homes[1]);
  }
  std::size_t sum = 0;
  for (const Node* member : members_) sum += load(member);
  const std::size_t bound = (5 * sum / members_.size() + 3) / 4 + 1;
  std::ranges::stable_partition(homes, [&](const Node* home) { return load(home) <= bound; });
}

void StoreClient::try_next(Fetch& fetch) {
  fetch.node = nullptr;
  while (fetch.next < fetch.candidates.size()) {
    const auto [node, role] = fetch.candidates[fetch.next++];
    if (!node->memory || !node->geometry) continue;
    fetch.node = node;
    fetch.role = role;
    fetch.reads = 0;
    node->fetches.insert(&fetch);
    const auto known = node->known.find(fetch.ask.name);
    fetch.knew_entry = known != node->known.end();
    if (fetch.knew_entry) return read_object(fetch, known->second);
    return look_up(fetch, *node);
  }
  ask_origin(fetch);
}

void StoreClient::look_up(Fetch& fetch, Node& node) {
  fetch.stage = Fetch::Stage::kBuckets;
  fetch.parts_waiting = 2;
  const auto offsets = bucket_offsets(fetch.ask.name, *node.geometry);
  const std::span<std::byte> buckets(fetch.buckets);
  const auto first = node.memory->view(offsets[0], kBucketBytes);
  const auto second = node.memory->view(offsets[1], kBucketBytes);
  if (first && second) {
    std::memcpy(buckets.data(), first->data(), kBucketBytes);
    std::memcpy(&buckets[kBucketBytes], second->data(), kBucketBytes);
    return take_buckets(fetch);
  }
  for (std::size_t i = 0; i < 2; ++i) {
    node.outbox.push_back({.tag = fetch.slot * kParts + i,
                           .offset = offsets.at(i),
                           .into = buckets.subspan(i * kBucketBytes, kBucketBytes)});
  }
}

void StoreClient::take_buckets(Fetch& fetch) {
  Node& node = *fetch.node;
  const auto entry = find_in_bucket(fetch.buckets, fetch.ask.name, *node.geometry);
  if (!entry) {
    const bool should_have = fetch.role == Role::kOwn || fetch.role == Role::kHome;
    if (should_have) fetch.lacking.push_back(node.name);
    return give_up_node(fetch);
  }
  if (!node.memory->is_local() && node.known.size() < options_.index_entries_max) {
    node.known[fetch.ask.name] = *entry;
  }
  read_object(fetch, *entry);
}

void StoreClient::read_object(Fetch& fetch, const IndexEntry& entry) {
  fetch.stage = Fetch::Stage::kObject;
  fetch.parts_waiting = 1;
  fetch.entry = entry;
  ++fetch.reads;
  const auto seen = fetch.node->memory->view(entry.offset, entry.bytes);
  if (seen && !entry.is_compressed) {
    ExtentBuffer& buffer = *fetch.ask.into;
    return end_object(fetch, buffer.load_trusted(fetch.ask.name, *seen, entry.pages, entry.checksum,
                                                 options_.keys));
  }
  std::span<std::byte> into;
  if (entry.is_compressed) {
    fetch.packed.resize(entry.bytes);
    into = fetch.packed;
  } else {
    const auto raw = fetch.ask.into->raw(entry.pages);
    if (!raw || raw->size() != entry.bytes) return distrust(fetch);
    into = *raw;
  }
  fetch.node->outbox.push_back(
      {.tag = fetch.slot * kParts + kObject, .offset = entry.offset, .into = into});
}

void StoreClient::take_object(Fetch& fetch) {
  ExtentBuffer& buffer = *fetch.ask.into;
  end_object(fetch, fetch.entry.is_compressed
                        ? buffer.load(fetch.ask.name, fetch.packed, options_.keys)
                        : buffer.verify_raw(fetch.ask.name, options_.keys));
}

void StoreClient::end_object(Fetch& fetch, const Result<void>& verified) {
  if (!verified) return distrust(fetch);
  counts_.bytes += fetch.entry.bytes;
  if (fetch.role == Role::kOwn) ++counts_.own;
  if (fetch.role == Role::kHome) ++counts_.homes;
  if (fetch.role == Role::kNeighbour) ++counts_.neighbours;
  finish(fetch, {});
}

/// The bytes were not the extent: the entry was old, the read torn, the memory damaged, or the node
/// lies. The first two mend themselves by looking again.
void StoreClient::distrust(Fetch& fetch) {
  ++counts_.failed_checks;
  Node& node = *fetch.node;
  node.known.erase(fetch.ask.name);
  if (fetch.reads < kReadsMax) {
    fetch.knew_entry = false;
    return look_up(fetch, node);
  }
  keeper_.recheck(node.name, fetch.ask.name);
  if (fetch.role != Role::kNeighbour) fetch.lacking.push_back(node.name);
  give_up_node(fetch);
}

void StoreClient::give_up_node(Fetch& fetch) {
  fetch.node->fetches.erase(&fetch);
  try_next(fetch);
}

void StoreClient::ask_origin(Fetch& fetch) {
  fetch.stage = Fetch::Stage::kOrigin;
  if (origin_ == nullptr) {
    const bool all_answered = fetch.lacking.size() >= fetch.candidates.size();
    return finish(fetch, all_answered
                             ? fail(Errc::kNotFound,
                                    "no store node has the extent, and there is "
                                    "no origin")
                             : fail(Errc::kUnavailable, "no store node that has it answers"));
  }
  const ExtentFetch ask{.tag = fetch.slot, .name = fetch.ask.name, .into = fetch.ask.into};
  if (auto asked = origin_->start({&ask, 1}); !asked) finish(fetch, std::move(asked));
}

void StoreClient::finish(Fetch& fetch, Result<void> result) {
  if (fetch.node != nullptr) fetch.node->fetches.erase(&fetch);
  if (!result) fetch.ask.into->clear();
  if (result && options_.fill_nodes && !fetch.lacking.empty()) fill(fetch);
  finished_.push_back({.tag = fetch.ask.tag, .result = std::move(result)});
  fetch.stage = Fetch::Stage::kIdle;
  fetch.node = nullptr;
  free_.push_back(&fetch);
  --busy_;
}

void StoreClient::fill(const Fetch& fetch) {
  const auto object =
      std::make_shared<const std::vector<std::byte>>(fetch.ask.into->encode_plain(options_.keys));
  for (const std::string& node : fetch.lacking) {
    keeper_.upload(node, {.name = fetch.ask.name, .object = object});
  }
}

void StoreClient::flush(Node& node) {
  if (node.outbox.empty() || !node.memory) return;
  const std::size_t room = node.memory->operations_max() - node.memory->under_way();
  const std::size_t count = std::min(room, node.outbox.size());
  if (count == 0) return;
  if (!node.memory->read_batch(std::span(node.outbox).first(count))) return break_node(node);
  node.outbox.erase(node.outbox.begin(), node.outbox.begin() + static_cast<std::ptrdiff_t>(count));
}

void StoreClient::take_done(Node& node, Deadline deadline) {
  if (!node.memory || node.memory->under_way() == 0) return;
  node.done.clear();
  node.memory->poll(node.done, deadline);
  const bool is_broken =
      std::ranges::any_of(node.done, [](const RemoteDone& done) { return !done.result; });
  if (is_broken) return break_node(node);
  for (const RemoteDone& done : node.done) end_read(done);
}

void StoreClient::end_read(const RemoteDone& done) {
  Fetch& fetch = *fetches_.at(done.tag / kParts);
  CHECK(fetch.parts_waiting > 0);
  if (--fetch.parts_waiting > 0) return;
  if (done.tag % kParts == kObject) return take_object(fetch);
  take_buckets(fetch);
}

/// The lease is over or the connection broke: its fetches go on elsewhere.
void StoreClient::break_node(Node& node) {
  node.memory.reset();
  node.geometry.reset();
  node.known.clear();
  node.outbox.clear();
  keeper_.lease_broke(node.name);
  for (Fetch* fetch : std::exchange(node.fetches, {})) try_next(*fetch);
}

void StoreClient::refresh(Node& node) {
  if (auto ticket = keeper_.take_ticket(node.name)) {
    if (node.memory) break_node(node);
    auto memory = open_(std::move(ticket->first), FabricAccess::kRead, ticket->second);
    if (!memory) return keeper_.lease_broke(node.name);
    node.memory = *std::move(memory);
    std::vector<std::byte> header(kArenaHeaderBytes);
    const RemoteRead read{.tag = 0, .offset = 0, .into = header};
    std::vector<RemoteDone> done;
    const auto begun = node.memory->read_batch({&read, 1});
    if (begun) node.memory->poll(done, std::chrono::steady_clock::now() + std::chrono::seconds(1));
    const bool is_read = !done.empty() && done.front().result.has_value();
    auto geometry = is_read ? decode_geometry(header)
                            : Result<ArenaGeometry>(fail(Errc::kUnavailable, "not read"));
    if (!geometry || geometry->bytes() > node.memory->bytes()) return break_node(node);
    node.geometry = *geometry;
    return;
  }
  if (!node.memory) return;
  node.memory->extend(keeper_.lease_end(node.name));
  if (!node.memory->is_usable()) break_node(node);
}

bool StoreClient::make_progress() {
  const auto now = std::chrono::steady_clock::now();
  if (now >= next_refresh_) {
    next_refresh_ = now + kRefreshEvery;
    for (const auto& [name, node] : nodes_) refresh(*node);
  }
  const std::size_t before = finished_.size();
  for (const auto& [name, node] : nodes_) {
    flush(*node);
    take_done(*node, Deadline::min());
    flush(*node);
  }
  if (origin_ != nullptr && origin_->under_way() > 0) take_from_origin(Deadline::min());
  return finished_.size() > before;
}

void StoreClient::take_from_origin(Deadline deadline) {
  for (FetchedExtent& fetched : origin_->poll(deadline)) {
    Fetch& fetch = *fetches_.at(fetched.tag);
    if (fetched.result) ++counts_.origin;
    finish(fetch, std::move(fetched.result));
  }
}

std::vector<FetchedExtent> StoreClient::poll(Deadline deadline) {
  while (finished_.empty() && busy_ > 0) {
    if (make_progress() || !finished_.empty()) break;
    const auto now = std::chrono::steady_clock::now();
    if (now >= deadline) break;
    const auto remote = std::ranges::find_if(nodes_, [](const auto& entry) {
      const Node& node = *entry.second;
      return node.memory && node.memory->under_way() > 0 && !node.memory->is_local();
    });
    // A nap with one of them: what others complete waits for so long at most.
    const Deadline nap = std::min(deadline, now + kNap);
    if (remote != nodes_.end()) {
      take_done(*remote->second, nap);
    } else if (origin_ != nullptr && origin_->under_way() > 0) {
      take_from_origin(nap);
    }
  }
  return std::exchange(finished_, {});
}

Result<void> StoreClient::wait_for_nodes(Deadline deadline, std::ptrdiff_t count) {
  while (true) {
    next_refresh_ = {};
    make_progress();
    const auto readable = std::ranges::count_if(
        nodes_, [](const auto& entry) { return entry.second->geometry.has_value(); });
    if (readable >= count) return {};
    if (std::chrono::steady_clock::now() >= deadline) {
      return fail(Errc::kTimedOut, "too few store nodes can be read");
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
  }
}

Result<void> StoreClient::drain(Deadline deadline) {
  if (keeper_.drain(deadline)) return {};
  return fail(Errc::kTimedOut, "not all uploads were carried");
}

std::vector<std::pair<ObjectName, std::uint64_t>> StoreClient::take_hottest(std::size_t count) {
  std::vector<std::pair<ObjectName, std::uint64_t>> all(reads_.begin(), reads_.end());
  reads_.clear();
  count = std::min(count, all.size());
  std::ranges::partial_sort(all, all.begin() + static_cast<std::ptrdiff_t>(count),
                            [](const auto& a, const auto& b) { return a.second > b.second; });
  all.resize(count);
  return all;
}

}  // namespace samepage::imagestore
