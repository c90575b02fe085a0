#include <algorithm>
#include <utility>

#include "core/check.h"
#include "imagestore/overlay.h"
#include "imagestore/overlay_bits.h"

namespace samepage::imagestore {

/// Before pages change: what a commit has yet to take. Under the stripe's lock.
Result<void> Overlay::save_frozen(std::uint64_t first, std::uint64_t count) {
  if (!is_committing_) return {};
  for (std::uint64_t page = first; page < first + count; ++page) {
    const std::uint8_t byte = map_[page];
    if ((byte & kFrozen) == 0) continue;
    std::vector<std::byte> bytes;
    if (state_of(byte) == PageState::kWritten) {
      bytes.resize(kPageSize);
      TRY(read(page * kPageSize, bytes));
    }
    const std::lock_guard lock(saved_mutex_);
    saved_.try_emplace(page, std::move(bytes));
    map_[page] = static_cast<std::uint8_t>(byte & ~kFrozen);
  }
  return {};
}

Result<void> Overlay::freeze() {
  const auto gate = stop_writes();
  if (is_committing_) return fail(Errc::kInvalid, "a commit of this disk is under way already");
  if (is_moving_) {
    return fail(Errc::kInvalid, "the disk is moving to another host: commit it when it is there");
  }
  for (std::uint64_t page = 0; page < root_.pages(); ++page) {
    const std::uint8_t byte = map_[page].load(std::memory_order_relaxed);
    if (state_of(byte) == PageState::kBase || (byte & kCommitted) != 0) continue;
    map_[page].fetch_or(kFrozen);
  }
  is_committing_ = true;
  return {};
}

/// The frozen pages among these, in `bytes` one after the other where they have data.
Result<std::vector<StateRun>> Overlay::take_frozen(std::uint64_t first, std::uint64_t count,
                                                   std::vector<std::byte>& bytes) {
  std::vector<StateRun> runs;
  bytes.clear();
  const auto add = [&](std::uint64_t page, PageState state) {
    append_page(runs, page, state);
    if (state == PageState::kWritten) bytes.resize(bytes.size() + kPageSize);
    return std::span(bytes).last(state == PageState::kWritten ? kPageSize : 0);
  };
  const std::lock_guard stripe_lock(stripe(first));
  for (std::uint64_t page = first; page < first + count; ++page) {
    const std::uint8_t byte = map_[page];
    if ((byte & kFrozen) != 0) {
      TRY(read(page * kPageSize, add(page, state_of(byte))));
      map_[page].fetch_xor(kFrozen | kHandedOut);
      continue;
    }
    const std::lock_guard lock(saved_mutex_);
    const auto found = saved_.find(page);
    if (found == saved_.end()) continue;
    const auto into = add(page, found->second.empty() ? PageState::kZero : PageState::kWritten);
    std::copy(found->second.begin(), found->second.end(), into.begin());
    saved_.erase(found);
    saved_changed_.notify_all();
  }
  return runs;
}

Result<void> Overlay::visit_frozen(const VisitFrozen& visit) {
  CHECK(is_committing_);
  std::vector<std::byte> bytes;
  for (std::uint64_t page = 0; page < root_.pages(); page += kStripePages) {
    const std::uint64_t count = std::min(kStripePages, root_.pages() - page);
    const auto runs = TRY(take_frozen(page, count, bytes));
    std::span<const std::byte> rest(bytes);
    for (const StateRun& run : runs) {
      const std::size_t size = run.state == PageState::kWritten ? run.count * kPageSize : 0;
      TRY(visit(run, rest.first(size)));
      rest = rest.subspan(size);
    }
  }
  return {};
}

Result<void> Overlay::adopt_commit(const VersionId& version) {
  const std::lock_guard lock(log_mutex_);
  committed_ = version;
  return append_log({});
}

Result<void> Overlay::finish_commit(const VersionId& version) {
  CHECK(is_committing_);
  TRY(adopt_commit(version));
  {
    const auto gate = stop_writes();
    for (std::uint64_t page = 0; page < root_.pages(); ++page) {
      const std::uint8_t byte = map_[page].load(std::memory_order_relaxed);
      if ((byte & kHandedOut) != 0) map_[page].fetch_xor(kHandedOut | kCommitted);
    }
    is_committing_ = false;
  }
  forget_freeze();
  return {};
}

void Overlay::abandon_commit() {
  {
    const auto gate = stop_writes();
    if (!is_committing_) return;
    for (std::uint64_t page = 0; page < root_.pages(); ++page) {
      const std::uint8_t byte = map_[page].load(std::memory_order_relaxed);
      if ((byte & (kFrozen | kHandedOut)) == 0) continue;
      map_[page].fetch_and(static_cast<std::uint8_t>(~(kFrozen | kHandedOut)));
    }
    is_committing_ = false;
  }
  forget_freeze();
}

void Overlay::forget_freeze() {
  {
    const std::lock_guard lock(saved_mutex_);
    saved_.clear();
  }
  saved_changed_.notify_all();
}

}  // namespace samepage::imagestore
