#include "imagestore/ring.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <numeric>
#include <set>
#include <utility>

#include <xxhash.h>

namespace samepage::imagestore {
namespace {

constexpr double kWeightMin = 0.01;
constexpr double kWeightMax = 100;
constexpr std::size_t kTextMax = 255;
constexpr std::uint16_t kNobody = UINT16_MAX;

bool is_sane(const RingMember& member) {
  return !member.node.empty() && member.node.size() <= kTextMax && member.host.size() <= kTextMax &&
         member.rack.size() <= kTextMax && member.weight >= kWeightMin &&
         member.weight <= kWeightMax;
}

}  // namespace

double Ring::score(std::size_t slot, const RingMember& member) const {
  const std::uint64_t hash = XXH3_64bits_withSeed(member.node.data(), member.node.size(), slot);
  const double uniform = (static_cast<double>(hash >> 11U) + 0.5) * 0x1p-53;
  return -member.weight / std::log(uniform);
}

std::size_t Ring::slot_of(const ObjectName& name) {
  // Bytes that the buckets of an arena do not use, so that a node's index fills evenly.
  std::uint16_t value = 0;
  std::memcpy(&value, &name.bytes.at(24), sizeof(value));
  return value % kSlots;
}

/// Shares by largest remainder, so that they add up to all slots.
std::vector<std::size_t> Ring::quotas() const {
  const double sum =
      std::accumulate(members_.begin(), members_.end(), 0.0,
                      [](double total, const RingMember& member) { return total + member.weight; });
  std::vector<std::size_t> quotas;
  std::vector<std::pair<double, std::size_t>> remainders;
  std::size_t given = 0;
  for (const RingMember& member : members_) {
    const double exact = kSlots * member.weight / sum;
    quotas.push_back(static_cast<std::size_t>(exact));
    remainders.emplace_back(static_cast<double>(quotas.back()) - exact, remainders.size());
    given += quotas.back();
  }
  std::ranges::sort(remainders);
  for (std::size_t i = 0; given < kSlots; ++i, ++given) ++quotas[remainders.at(i).second];
  return quotas;
}

std::vector<std::size_t> Ring::shares() const {
  std::vector<std::size_t> shares(members_.size());
  if (members_.empty()) return shares;
  for (const std::uint16_t owner : slots_) ++shares.at(owner);
  return shares;
}

Result<Ring> Ring::joined(const RingMember& member) const {
  if (!is_sane(member)) {
    return fail(Errc::kInvalid, "a store node has a name, and a weight from 0.01 to 100");
  }
  const bool is_known = std::ranges::any_of(
      members_, [&](const RingMember& other) { return other.node == member.node; });
  if (is_known) return fail(Errc::kInvalid, member.node + " is a store node already");
  if (members_.size() == kMembersMax) return fail(Errc::kInvalid, "the ring is full");

  Ring next = *this;
  ++next.version_;
  next.members_.push_back(member);
  const auto newcomer = static_cast<std::uint16_t>(members_.size());
  if (members_.empty()) {
    next.slots_.fill(newcomer);
    return next;
  }
  std::vector<std::pair<double, std::size_t>> by_score;
  for (std::size_t slot = 0; slot < kSlots; ++slot)
    by_score.emplace_back(-score(slot, member), slot);
  std::ranges::sort(by_score);
  const auto quotas = next.quotas();
  auto shares = next.shares();
  for (const auto& [ignored, slot] : by_score) {
    if (shares[newcomer] == quotas[newcomer]) break;
    const std::uint16_t owner = slots_.at(slot);
    if (shares[owner] <= quotas[owner]) continue;
    --shares[owner];
    ++shares[newcomer];
    next.slots_.at(slot) = newcomer;
  }
  return next;
}

Result<Ring> Ring::left(std::string_view node) const {
  const auto found =
      std::ranges::find_if(members_, [&](const RingMember& member) { return member.node == node; });
  if (found == members_.end()) {
    return fail(Errc::kNotFound, std::string(node) + " is no store node");
  }
  const auto gone = static_cast<std::uint16_t>(found - members_.begin());
  Ring next = *this;
  ++next.version_;
  next.members_.erase(next.members_.begin() + gone);
  if (next.members_.empty()) {
    next.slots_.fill(0);
    return next;
  }
  std::vector<std::size_t> shares(next.members_.size());
  for (std::uint16_t& owner : next.slots_) {
    if (owner == gone) {
      owner = kNobody;
    } else {
      if (owner > gone) --owner;
      ++shares[owner];
    }
  }
  const auto quotas = next.quotas();
  for (std::size_t slot = 0; slot < kSlots; ++slot) {
    if (next.slots_.at(slot) != kNobody) continue;
    std::size_t best = next.members_.size();
    double best_score = 0;
    for (std::size_t i = 0; i < next.members_.size(); ++i) {
      const double scored = score(slot, next.members_[i]);
      if (shares[i] >= quotas[i] || scored <= best_score) continue;
      best = i;
      best_score = scored;
    }
    ++shares.at(best);
    next.slots_.at(slot) = static_cast<std::uint16_t>(best);
  }
  return next;
}

std::vector<std::size_t> Ring::homes(const ObjectName& name, std::size_t count) const {
  std::vector<std::size_t> homes;
  if (members_.empty() || count == 0) return homes;
  const std::size_t slot = slot_of(name);
  homes.push_back(slots_.at(slot));
  std::vector<std::pair<double, std::size_t>> others;
  for (std::size_t i = 0; count > 1 && i < members_.size(); ++i) {
    if (i != homes.front()) others.emplace_back(-score(slot, members_[i]), i);
  }
  std::ranges::sort(others);
  // Three rounds: in a new rack, in a new host, any.
  for (int round = 0; round < 3; ++round) {
    for (const auto& [ignored, i] : others) {
      if (homes.size() == count) return homes;
      const bool is_taken = std::ranges::any_of(homes, [&](std::size_t home) {
        const bool same_rack = members_[home].rack == members_[i].rack;
        const bool same_host = members_[home].host == members_[i].host;
        return home == i || (round == 0 && same_rack) || (round == 1 && same_host);
      });
      if (!is_taken) homes.push_back(i);
    }
  }
  return homes;
}

std::size_t Ring::moved_from(const Ring& other) const {
  if (members_.empty() || other.members_.empty()) return kSlots;
  std::size_t moved = 0;
  for (std::size_t slot = 0; slot < kSlots; ++slot) {
    const auto& now = members_.at(slots_.at(slot)).node;
    if (now != other.members_.at(other.slots_.at(slot)).node) ++moved;
  }
  return moved;
}

bus::StoreRing Ring::to_message() const {
  bus::StoreRing message;
  message.set_version(version_);
  for (const RingMember& member : members_) {
    bus::StoreMember& added = *message.add_members();
    added.set_node(member.node);
    added.set_weight(member.weight);
    added.set_host(member.host);
    added.set_rack(member.rack);
  }
  if (members_.empty()) return message;
  std::string& slots = *message.mutable_slots();
  for (const std::uint16_t owner : slots_) {
    slots.push_back(static_cast<char>(owner & 0xFFU));
    slots.push_back(static_cast<char>(owner >> 8U));
  }
  return message;
}

Result<Ring> Ring::from_message(const bus::StoreRing& message) {
  Ring ring;
  ring.version_ = message.version();
  const auto members = static_cast<std::size_t>(message.members_size());
  const std::size_t slot_bytes = members == 0 ? 0 : 2 * kSlots;
  if (members > kMembersMax || message.slots().size() != slot_bytes) {
    return fail(Errc::kCorrupt, "a ring whose members and slots cannot be");
  }
  std::set<std::string> names;
  for (const bus::StoreMember& member : message.members()) {
    ring.members_.push_back({.node = member.node(),
                             .weight = member.weight(),
                             .host = member.host(),
                             .rack = member.rack()});
    if (!is_sane(ring.members_.back()) || !names.insert(member.node()).second) {
      return fail(Errc::kCorrupt, "a ring with a member that cannot be");
    }
  }
  for (std::size_t slot = 0; members > 0 && slot < kSlots; ++slot) {
    const auto low = static_cast<std::uint8_t>(message.slots()[2 * slot]);
    const auto high = static_cast<std::uint8_t>(message.slots()[2 * slot + 1]);
    const auto owner = static_cast<std::uint16_t>(low | high << 8U);
    if (owner >= members) return fail(Errc::kCorrupt, "a ring with a slot of nobody");
    ring.slots_.at(slot) = owner;
  }
  return ring;
}

}  // namespace samepage::imagestore
