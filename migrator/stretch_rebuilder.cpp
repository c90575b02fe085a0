#include "migrator/stretch_rebuilder.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "migrator/page_delta.h"

namespace samepage::migrator {
namespace {

PageBuffer page_in(const Arrival& arrival, const BatchGap& gap) {
  return arrival.stretch.bytes.subspan(gap.offset).first<kPageSize>();
}

}  // namespace

std::optional<pagecache::SourceId> BaseChoice::chosen() const {
  const MutexLock lock(mutex_);
  return chosen_;
}

bool BaseChoice::saw(std::span<const pagecache::WantedPage> wanted) {
  const MutexLock lock(mutex_);
  if (chosen_) return false;
  for (const pagecache::WantedPage& page : wanted) {
    if (!page.found) continue;
    ++found_;
    if (page.page == page.number) ++in_place_[page.source];
  }
  if (found_ < kPagesMin) return false;
  for (const auto& [source, pages] : in_place_) {
    if (static_cast<double>(pages) < kShareMin * static_cast<double>(found_)) continue;
    chosen_ = source;
    return true;
  }
  return false;
}

Result<bool> StretchRebuilder::rebuild(Arrival& arrival) {
  if (arrival.is_pipe) return false;
  const BatchBody body{.header = arrival.header, .rest = arrival.rest};
  const auto gaps = TRY(decode_batch(body, unpacker_, arrival.stretch.bytes));
  for (const BatchGap& gap : gaps) {
    if (gap.is_ref()) {
      arrival.refs.push_back(gap);
    } else {
      TRY(fill_from_history(gap, arrival.stretch.bytes));
    }
  }
  arrival.body = {};
  arrival.rest = {};
  TRY(fill_placed(arrival));
  const bool chosen = fill_found(arrival);
  std::ranges::sort(arrival.missing);
  return chosen;
}

Result<void> StretchRebuilder::fill_from_history(const BatchGap& gap,
                                                 std::span<std::byte> stretch) {
  const auto older = shared_.history.find(gap.place);
  if (!older) return fail(Errc::kCorrupt, "a reference to what is not in the history");
  const PageBuffer page = stretch.subspan(gap.offset).first<kPageSize>();
  std::memcpy(page.data(), older->bytes.data(), page.size());
  if (gap.kind == BatchKind::kDeltas) TRY(apply_delta(gap.delta, page));
  return {};
}

Result<void> StretchRebuilder::fill_placed(Arrival& arrival) {
  std::vector<pagecache::PlacedPage> placed;
  std::vector<std::uint32_t> refs;
  for (std::uint32_t i = 0; i < arrival.refs.size(); ++i) {
    const BatchGap& gap = arrival.refs[i];
    if (gap.kind != BatchKind::kPlaced) continue;
    placed.push_back({.page = gap.page, .to = page_in(arrival, gap)});
    refs.push_back(i);
  }
  if (placed.empty()) return {};
  const auto base = shared_.base.chosen();
  if (!base) return fail(Errc::kCorrupt, "a reference to a base that was not named");
  shared_.cache.read_placed(*base, placed);
  for (std::size_t i = 0; i < placed.size(); ++i) {
    if (!placed[i].found) arrival.missing.push_back(refs[i]);
  }
  return {};
}

bool StretchRebuilder::fill_found(Arrival& arrival) {
  std::vector<pagecache::WantedPage> wanted;
  std::vector<std::uint32_t> refs;
  for (std::uint32_t i = 0; i < arrival.refs.size(); ++i) {
    const BatchGap& gap = arrival.refs[i];
    if (gap.kind != BatchKind::kFound) continue;
    wanted.push_back({.hash = gap.hash,
                      .number = gap.page,
                      .to = page_in(arrival, gap),
                      .found = false,
                      .source = {},
                      .page = 0});
    refs.push_back(i);
  }
  if (wanted.empty()) return false;
  shared_.cache.find_many(wanted);
  for (std::size_t i = 0; i < wanted.size(); ++i) {
    if (!wanted[i].found) arrival.missing.push_back(refs[i]);
  }
  return shared_.base.saw(wanted);
}

}  // namespace samepage::migrator
