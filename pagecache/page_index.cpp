#include "pagecache/page_index.h"

#include <algorithm>
#include <utility>

namespace samepage::pagecache {
namespace {

constexpr unsigned kPageBits = 40;

std::uint64_t pack(Place place) {
  return std::uint64_t{place.slot} << kPageBits | place.page;
}

Place unpack(std::uint64_t packed) {
  return {static_cast<std::uint32_t>(packed >> kPageBits),
          packed & ((std::uint64_t{1} << kPageBits) - 1)};
}

}  // namespace

bool PageIndex::insert(PageHash hash, Place place) {
  if (place.slot >= kSlotsMax || place.page >= kPagesMax) return false;
  Shard& part = shard(hash);
  const MutexLock lock(part.mutex);
  return part.table.insert({hash.value, pack(place)});
}

std::size_t PageIndex::find(PageHash hash, std::array<Place, kPlacesMax>& places) const {
  const Shard& part = shard(hash);
  const MutexLock lock(part.mutex);
  return part.table.find(hash.value, places);
}

std::size_t PageIndex::erase(std::uint32_t slot) {
  std::size_t erased = 0;
  for (Shard& part : shards_) {
    const MutexLock lock(part.mutex);
    erased += part.table.erase(slot);
  }
  return erased;
}

void PageIndex::for_each_hash(const std::function<void(PageHash)>& visit) const {
  for (const Shard& part : shards_) {
    const MutexLock lock(part.mutex);
    for (const Entry& entry : part.table.entries()) {
      if (entry.place != kEmpty) visit(PageHash{entry.hash});
    }
  }
}

std::size_t PageIndex::bytes() const {
  std::size_t bytes = 0;
  for (const Shard& part : shards_) {
    const MutexLock lock(part.mutex);
    bytes += part.table.bytes();
  }
  return bytes;
}

bool PageIndex::Table::insert(const Entry& entry) {
  std::array<Place, kPlacesMax> places;
  const std::size_t count = find(entry.hash, places);
  const std::uint32_t slot = unpack(entry.place).slot;
  const auto same_slot = std::ranges::count_if(
      std::span(places).first(count), [slot](const Place& place) { return place.slot == slot; });
  if (count == kPlacesMax || std::cmp_greater_equal(same_slot, kPlacesPerSlotMax)) return false;
  if ((used_ + 1) * 100 > entries_.size() * 85) rebuild(used_ + 1);
  put(entry);
  ++used_;
  return true;
}

std::size_t PageIndex::Table::find(std::uint64_t hash,
                                   std::array<Place, kPlacesMax>& places) const {
  if (entries_.empty()) return 0;
  std::size_t found = 0;
  std::size_t position = home(hash);
  while (entries_[position].place != kEmpty && found < kPlacesMax) {
    const Entry& entry = entries_[position];
    if (entry.hash == hash) places[found++] = unpack(entry.place);
    position = after(position);
  }
  return found;
}

std::size_t PageIndex::Table::erase(std::uint32_t slot) {
  std::size_t erased = 0;
  for (Entry& entry : entries_) {
    if (entry.place == kEmpty || unpack(entry.place).slot != slot) continue;
    entry.place = kEmpty;
    ++erased;
  }
  if (erased == 0) return 0;
  used_ -= erased;
  rebuild(used_);  // Emptied entries cut probe sequences.
  return erased;
}

std::size_t PageIndex::Table::home(std::uint64_t hash) const {
  // The first bits chose the shard; the following ones spread over any number of entries.
  __extension__ using Wide = unsigned __int128;
  return static_cast<std::size_t>(Wide{hash << kShardBits} * entries_.size() >> 64U);
}

std::size_t PageIndex::Table::after(std::size_t position) const {
  return position + 1 == entries_.size() ? 0 : position + 1;
}

void PageIndex::Table::put(const Entry& entry) {
  std::size_t position = home(entry.hash);
  while (entries_[position].place != kEmpty) position = after(position);
  entries_[position] = entry;
}

void PageIndex::Table::rebuild(std::size_t used) {
  std::vector<Entry> old(used == 0 ? 0 : used * 10 / 7 + 1);
  std::swap(entries_, old);
  for (const Entry& entry : old) {
    if (entry.place != kEmpty) put(entry);
  }
}

}  // namespace samepage::pagecache
