#include "fingerprinter/hash_counts.h"

#include <algorithm>
#include <bit>
#include <utility>

#include "core/check.h"

namespace samepage::fingerprinter {
namespace {

constexpr std::size_t kSlotsMin = 1024;

}  // namespace

HashCounts::HashCounts(std::size_t expected)
    : keys_(std::max(kSlotsMin, std::bit_ceil(expected + expected / 2))), counts_(keys_.size()) {}

// The hashes are uniform already; their low bits are the sketch's cells.
std::size_t HashCounts::home(std::uint64_t key) const {
  return key >> (64U - static_cast<unsigned>(std::countr_zero(keys_.size())));
}

std::size_t HashCounts::find(std::uint64_t key) const {
  std::size_t slot = home(key);
  while (counts_[slot] != 0 && keys_[slot] != key) slot = (slot + 1) & (keys_.size() - 1);
  return slot;
}

std::uint32_t HashCounts::add(PageHash hash) {
  if ((size_ + 1) * 3 > keys_.size() * 2) grow();
  const std::size_t slot = find(hash.value);
  if (counts_[slot] == 0) {
    keys_[slot] = hash.value;
    ++size_;
  }
  return ++counts_[slot];
}

std::uint32_t HashCounts::remove(PageHash hash) {
  std::size_t free = find(hash.value);
  CHECK(counts_[free] != 0);
  if (--counts_[free] != 0) return counts_[free];
  --size_;
  // Moves up what could no longer be found behind the free slot.
  const std::size_t mask = keys_.size() - 1;
  for (std::size_t slot = (free + 1) & mask; counts_[slot] != 0; slot = (slot + 1) & mask) {
    const std::size_t distance = (slot - home(keys_[slot])) & mask;
    if (distance < ((slot - free) & mask)) continue;
    keys_[free] = keys_[slot];
    counts_[free] = std::exchange(counts_[slot], 0);
    free = slot;
  }
  return 0;
}

void HashCounts::grow() {
  HashCounts larger(keys_.size());
  for_each([&](PageHash hash, std::uint32_t count) {
    const std::size_t slot = larger.find(hash.value);
    larger.keys_[slot] = hash.value;
    larger.counts_[slot] = count;
  });
  larger.size_ = size_;
  *this = std::move(larger);
}

}  // namespace samepage::fingerprinter
