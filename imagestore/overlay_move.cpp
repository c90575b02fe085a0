#include <algorithm>

#include "core/check.h"
#include "imagestore/overlay.h"
#include "imagestore/overlay_bits.h"

namespace samepage::imagestore {
namespace {

constexpr std::size_t kRunsMax = 512;  // Handed out at a time, whatever they are of.

}  // namespace

Result<void> Overlay::begin_move(bool committed) {
  const auto gate = stop_writes();
  if (is_committing_) {
    return fail(Errc::kInvalid, "the disk is being committed: try again when that is done");
  }
  if (is_moving_) return fail(Errc::kInvalid, "the disk is moving to another host already");
  for (std::uint64_t page = 0; page < root_.pages(); ++page) {
    if (map_[page].load(std::memory_order_relaxed) == 0) continue;
    map_[page].fetch_and(static_cast<std::uint8_t>(~kSent));
  }
  for (auto& group : groups_unsent_) group = true;
  next_unsent_ = 0;
  moves_committed_ = committed;
  is_moving_ = true;
  return {};
}

/// From next_unsent_ on, to the end of its stripe or until there is enough.
Result<void> Overlay::take_in_stripe(std::size_t pages_max, Unsent& unsent) {
  const std::uint64_t end =
      std::min((next_unsent_ / kStripePages + 1) * kStripePages, root_.pages());
  const std::lock_guard stripe_lock(stripe(next_unsent_));
  for (; next_unsent_ < end; ++next_unsent_) {
    const std::uint8_t byte = map_[next_unsent_];
    const PageState state = state_of(byte);
    const bool is_left_out = (byte & kCommitted) != 0 && !moves_committed_;
    if (state == PageState::kBase || (byte & kSent) != 0 || is_left_out) continue;
    if (unsent.runs.size() >= kRunsMax) return {};
    if (state == PageState::kWritten) {
      const std::size_t size = unsent.bytes.size();
      if (size / kPageSize >= pages_max) return {};
      unsent.bytes.resize(size + kPageSize);
      TRY(read(next_unsent_ * kPageSize, std::span(unsent.bytes).subspan(size)));
    }
    append_page(unsent.runs, next_unsent_, state);
    map_[next_unsent_].fetch_or(kSent);
  }
  return {};
}

Result<Overlay::Unsent> Overlay::take_unsent(std::size_t pages_max) {
  CHECK(is_moving_);
  Unsent unsent;
  while (next_unsent_ < root_.pages()) {
    const std::uint64_t group = next_unsent_ / kGroupPages;
    const bool begins = next_unsent_ % kGroupPages == 0;
    // Before its pages are looked at: who writes to one behind this says so again.
    if (begins && !groups_unsent_[group].exchange(false)) {
      next_unsent_ = std::min((group + 1) * kGroupPages, root_.pages());
      continue;
    }
    const std::uint64_t stripe_end = (next_unsent_ / kStripePages + 1) * kStripePages;
    TRY(take_in_stripe(pages_max, unsent));
    if (next_unsent_ < std::min(stripe_end, root_.pages())) {
      if (next_unsent_ == group * kGroupPages) groups_unsent_[group] = true;
      return unsent;
    }
  }
  next_unsent_ = 0;
  unsent.is_last = true;
  return unsent;
}

void Overlay::end_move() {
  const auto gate = stop_writes();
  is_moving_ = false;
}

Result<void> Overlay::put(std::span<const StateRun> runs, std::span<const std::byte> bytes) {
  const ReadBase no_base = [](std::uint64_t, PageBuffer) -> Result<void> {
    return fail(Errc::kInvalid, "pages are put whole");
  };
  for (const StateRun& run : runs) {
    if (run.first > root_.pages() || run.count > root_.pages() - run.first) {
      return fail(Errc::kInvalid, "pages behind the end of the disk");
    }
    if (run.state == PageState::kWritten) {
      const std::size_t size = run.count * kPageSize;
      if (bytes.size() < size) return fail(Errc::kInvalid, "pages without their bytes");
      TRY(write(run.first * kPageSize, bytes.first(size), no_base));
      bytes = bytes.subspan(size);
      continue;
    }
    if (run.state == PageState::kBase) return fail(Errc::kInvalid, "pages that nobody wrote");
    for (std::uint64_t page = run.first; page < run.first + run.count;) {
      const std::uint64_t stripe_end = (page / kStripePages + 1) * kStripePages;
      const std::uint64_t count = std::min(stripe_end, run.first + run.count) - page;
      TRY(zero_pages(page, count));
      page += count;
    }
  }
  return {};
}

}  // namespace samepage::imagestore
