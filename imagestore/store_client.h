#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <optional>
#include <random>
#include <string>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "core/clock.h"
#include "imagestore/extent_index.h"
#include "imagestore/extent_source.h"
#include "imagestore/ring.h"
#include "imagestore/store_keeper.h"

namespace samepage::imagestore {

/// Reads extents out of store nodes' memory without their help: looks each up in a node's index,
/// reads it, verifies it by digest, or by checksum where the node is this host's own, whose agent
/// has digested what it took. The nodes asked, in this order: this host's own, its homes on the
/// ring, neighbours that have read the same image, and then the origin. What was found further away
/// is put into the nearer places that lacked it; what was found damaged is checked by its node and
/// replaced.
///
/// Of the homes of a hot extent two are drawn and the one with less under way is asked (power of
/// two choices, Mitzenmacher 2001); a node that has more than 5/4 of the mean under way is passed
/// over as long as another home is left (bounded load, Mirrokni et al. 2018).
///
/// Invariant: as ExtentSource. Threads: one at a time; a StoreKeeper works beside it.
/// Lifetime: borrows control, origin and clock.
class StoreClient final : public ExtentSource {
 public:
  struct Options {
    DomainKeys keys;
    std::string own_node = {};  ///< Name of this host's node on the ring; it is read through shm.
    bool has_own_node = true;   ///< The control's own store can be read.
    std::size_t fetches_max = 256;
    std::size_t index_entries_max = 65'536;  ///< Remembered of each node that is not local.
    std::size_t homes_when_hot = 4;
    bool fill_nodes = true;  ///< Upload what nodes lacked.
    StoreKeeper::Options keeper = {};
    OpenRemote open = {};  ///< None: open_remote().
  };

  /// Where fetches found their extents.
  struct Counts {
    std::uint64_t own = 0;
    std::uint64_t homes = 0;
    std::uint64_t neighbours = 0;
    std::uint64_t origin = 0;
    std::uint64_t failed_checks = 0;  ///< Copies that were not what they are called, then re-read.
    std::uint64_t bytes = 0;          ///< Of objects, from anywhere but the origin.
  };

  /// `origin` is the last resort; null: there is none.
  StoreClient(Options options, StoreControl& control, ExtentSource* origin, const Clock& clock);
  ~StoreClient() override;
  StoreClient(const StoreClient&) = delete;
  StoreClient& operator=(const StoreClient&) = delete;

  /// What this host's node is called on the ring. Before set_ring().
  void set_own_node(const std::string& name) { own_name_ = name; }

  /// From now on. Fetches under way end with the nodes that they have.
  void set_ring(const Ring& ring);
  void set_hot(std::unordered_set<ObjectName> hot) { hot_ = std::move(hot); }
  void set_neighbours(const std::vector<std::string>& nodes);

  Result<void> start(std::span<const ExtentFetch> fetches) override;
  std::vector<FetchedExtent> poll(Deadline deadline) override;
  std::size_t under_way() const override { return busy_ + finished_.size(); }
  std::size_t fetches_max() const override { return options_.fetches_max; }

  /// Waits until `count` nodes can be read. kTimedOut: fewer by then.
  Result<void> wait_for_nodes(Deadline deadline, std::ptrdiff_t count = 1);

  /// Waits for uploads. kTimedOut: not all were carried by then.
  Result<void> drain(Deadline deadline);

  const Counts& counts() const { return counts_; }

  /// How often each extent was fetched since the last call, for those fetched most.
  std::vector<std::pair<ObjectName, std::uint64_t>> take_hottest(std::size_t count);

 private:
  struct Node;
  struct Fetch;
  enum class Role : std::uint8_t { kOwn, kHome, kNeighbour };

  void begin(const ExtentFetch& ask);
  std::vector<std::pair<Node*, Role>> candidates(const ObjectName& name);
  void order_homes(std::vector<Node*>& homes, bool are_hot);
  void try_next(Fetch& fetch);
  void look_up(Fetch& fetch, Node& node);
  void take_buckets(Fetch& fetch);
  void read_object(Fetch& fetch, const IndexEntry& entry);
  void take_object(Fetch& fetch);
  void end_object(Fetch& fetch, const Result<void>& verified);
  void distrust(Fetch& fetch);
  void give_up_node(Fetch& fetch);
  void ask_origin(Fetch& fetch);
  void finish(Fetch& fetch, Result<void> result);
  void fill(const Fetch& fetch);
  bool make_progress();
  void flush(Node& node);
  void take_done(Node& node, Deadline deadline);
  void end_read(const RemoteDone& done);
  void refresh(Node& node);
  void break_node(Node& node);
  void take_from_origin(Deadline deadline);
  Node& node_of(const std::string& name, const std::string& fabric);
  void prune_nodes();

  const Options options_;
  const Clock& clock_;
  ExtentSource* const origin_;
  OpenRemote open_;
  std::map<std::string, std::unique_ptr<Node>> nodes_;
  std::string own_name_;
  Node* own_ = nullptr;
  Ring ring_;
  std::vector<Node*> members_;  ///< By position in the ring; null: this host's own.
  std::vector<Node*> neighbours_;
  std::unordered_set<ObjectName> hot_;
  std::unordered_map<ObjectName, std::uint64_t> reads_;
  std::vector<std::unique_ptr<Fetch>> fetches_;  ///< By slot.
  std::vector<Fetch*> free_;
  std::size_t busy_ = 0;
  std::vector<FetchedExtent> finished_;
  std::mt19937_64 random_;
  Counts counts_;
  Deadline next_refresh_;
  StoreKeeper keeper_;  // Last: its thread ends before what it works for.
};

}  // namespace samepage::imagestore
