#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "core/bus.pb.h"
#include "core/result.h"
#include "imagestore/origin.h"

namespace samepage::imagestore {

struct RingMember {
  std::string node;   ///< The store node's name, which is its agent's.
  double weight = 1;  ///< Its share is in proportion.
  std::string host;   ///< Failure domains: homes of one extent differ in rack, else in host.
  std::string rack;

  friend bool operator==(const RingMember&, const RingMember&) = default;
};

/// Which store nodes are an extent's homes. The names of extents fall into 4,096 slots; a slot has
/// one owner, and an order in which other nodes stand in for it.
///
/// Both come from weighted rendezvous hashing (Thaler and Ravishankar 1998; weights after Schindler
/// and Schomaker 2005): the node with the highest score for a slot. Owners are kept, not computed:
/// a node that joins takes its exact share of slots, those for which it scores highest, from nodes
/// that have more than theirs; the slots of one that leaves go to nodes that have less. So shares
/// are exact to two slots, and a change moves 1/n of the extents and no more, where plain
/// rendezvous hashing of 4,096 slots would move up to a quarter more by chance.
///
/// Invariant: with members, every slot has an owner; shares are within two slots of what weights
/// say. A value: copies share nothing.
class Ring {
 public:
  static constexpr std::size_t kSlots = 4096;
  static constexpr std::size_t kMembersMax = 1024;

  std::uint64_t version() const { return version_; }
  const std::vector<RingMember>& members() const { return members_; }

  /// The next version, with `member`. kInvalid: it is in the ring, its weight is not between 0.01
  /// and 100, its name is empty, or the ring is full.
  Result<Ring> joined(const RingMember& member) const;

  /// The next version, without it. kNotFound: it is not in the ring.
  Result<Ring> left(std::string_view node) const;

  static std::size_t slot_of(const ObjectName& name);

  /// Up to `count` members, as positions in members(): the owner first, then those that stand in,
  /// in other racks and hosts where there are any.
  std::vector<std::size_t> homes(const ObjectName& name, std::size_t count) const;

  /// The slots that each member owns.
  std::vector<std::size_t> shares() const;

  /// Slots with another owner (by name) than in `other`.
  std::size_t moved_from(const Ring& other) const;

  bus::StoreRing to_message() const;

  /// kCorrupt: members or slots that cannot be.
  static Result<Ring> from_message(const bus::StoreRing& message);

 private:
  std::vector<std::size_t> quotas() const;
  double score(std::size_t slot, const RingMember& member) const;

  std::uint64_t version_ = 0;
  std::vector<RingMember> members_;
  std::array<std::uint16_t, kSlots> slots_{};
};

}  // namespace samepage::imagestore
