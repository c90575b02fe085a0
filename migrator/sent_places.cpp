#include "migrator/sent_places.h"

#include <utility>

namespace samepage::migrator {
namespace {

constexpr unsigned kBlockShift = 52;  // Above any page's number.

bool within(std::uint64_t place, std::uint64_t now, std::uint64_t reach) {
  return place < now && now - place <= reach;
}

/// Drops places out of reach once there are twice as many as can be within it.
template <class Places>
void sweep(Places& places, std::uint64_t now, std::uint64_t reach) {
  if (places.size() < 1024 || places.size() < 2 * (reach / kPageSize)) return;
  std::erase_if(places, [&](const auto& entry) {
    return entry.second < now && !within(entry.second, now, reach);
  });
}

}  // namespace

std::uint64_t LatestVersions::note(const StreamToken& record, std::uint64_t place) {
  const std::uint64_t page = std::uint64_t{record.block} << kBlockShift ^ record.header / kPageSize;
  const auto [entry, is_new] = places_.try_emplace(page, place);
  if (is_new) {
    sweep(places_, place, reach_);
    return kNowhere;
  }
  const std::uint64_t before = std::exchange(entry->second, place);
  return within(before, place, reach_) ? before : kNowhere;
}

void SentContents::note(std::span<Page> pages, std::uint64_t begin) {
  const MutexLock lock(mutex_);
  for (Page& page : pages) {
    const auto [entry, is_new] = places_.try_emplace(page.hash, page.place);
    if (is_new) continue;
    if (within(entry->second, begin, reach_)) page.before = entry->second;
    entry->second = page.place;
  }
  sweep(places_, begin, reach_);
}

}  // namespace samepage::migrator
