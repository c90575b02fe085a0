#include "migrator/resend_window.h"

#include <algorithm>
#include <chrono>
#include <utility>

#include "core/check.h"

namespace samepage::migrator {
namespace {

using std::chrono::steady_clock;

PageView page_at(const ResendWindow::Entry& entry, std::uint32_t ref) {
  return entry.stretch.bytes.subspan(entry.ref_offsets[ref]).first<kPageSize>();
}

void append(PageView page, std::uint32_t ref, ResentPages& resent) {
  resent.refs.push_back(ref);
  resent.pages.insert(resent.pages.end(), page.begin(), page.end());
}

}  // namespace

bool ResendWindow::has_room(std::size_t wire_bytes) {
  if (entries_.size() >= limits_.batches_max) return false;
  if (next_to_arrive_ == next_sequence_) return true;
  return wire_bytes_ + wire_bytes <= std::min(limits_.wire_bytes_max, meter_.window());
}

Result<void> ResendWindow::add(Entry entry, Deadline deadline) {
  const MutexLock lock(mutex_);
  while (!closed_ && !has_room(entry.wire_bytes)) {
    if (steady_clock::now() >= deadline) {
      return fail(Errc::kTimedOut, "the target stopped acknowledging");
    }
    changed_.wait_until(mutex_, deadline);
  }
  if (closed_) return fail(Errc::kUnavailable, "the relay ended");
  CHECK(entry.sequence == next_sequence_);
  ++next_sequence_;
  wire_bytes_ += entry.wire_bytes;
  meter_.sent(entry.wire_bytes, steady_clock::now());
  entries_.push_back(std::move(entry));
  return {};
}

void ResendWindow::take_off_link(std::uint64_t sequence) {
  const auto now = steady_clock::now();
  for (; next_to_arrive_ <= sequence; ++next_to_arrive_) {
    wire_bytes_ -= entries_[next_to_arrive_ - entries_.front().sequence].wire_bytes;
    meter_.arrived(now);
  }
}

Result<void> ResendWindow::arrived(std::uint64_t sequence) {
  const MutexLock lock(mutex_);
  TRY(under_way(sequence));
  take_off_link(sequence);
  changed_.notify_all();
  return {};
}

Result<std::uint64_t> ResendWindow::acknowledge(std::uint64_t sequence) {
  const MutexLock lock(mutex_);
  TRY(under_way(sequence));
  take_off_link(sequence);
  std::uint64_t stream_bytes = 0;
  while (!entries_.empty() && entries_.front().sequence <= sequence) {
    stream_bytes += entries_.front().stretch.bytes.size();
    entries_.pop_front();
  }
  changed_.notify_all();
  return stream_bytes;
}

Result<const ResendWindow::Entry*> ResendWindow::under_way(std::uint64_t sequence) {
  if (entries_.empty() || sequence < entries_.front().sequence || sequence >= next_sequence_) {
    return fail(Errc::kCorrupt, "an answer to a batch that is not under way");
  }
  return &entries_[sequence - entries_.front().sequence];
}

Result<ResentPages> ResendWindow::pages(const MissingPages& missing) {
  const MutexLock lock(mutex_);
  const Entry& entry = *TRY(under_way(missing.sequence));
  ResentPages resent{.sequence = missing.sequence, .refs = {}, .pages = {}};
  for (const std::uint32_t ref : missing.refs) {
    if (ref >= entry.ref_offsets.size()) {
      return fail(Errc::kCorrupt, "a request for a page that was not referred to");
    }
    append(page_at(entry, ref), ref, resent);
  }
  return resent;
}

Result<ResentPages> ResendWindow::differing(const DoubtedBatch& doubt) {
  const MutexLock lock(mutex_);
  const Entry& entry = *TRY(under_way(doubt.sequence));
  if (doubt.digests.size() != entry.ref_offsets.size()) {
    return fail(Errc::kCorrupt, "digests of other pages than were referred to");
  }
  ResentPages resent{.sequence = doubt.sequence, .refs = {}, .pages = {}};
  for (std::uint32_t ref = 0; ref < doubt.digests.size(); ++ref) {
    const PageView page = page_at(entry, ref);
    if (shorten(digest_page(page, key_)) != doubt.digests[ref]) append(page, ref, resent);
  }
  return resent;
}

Result<void> ResendWindow::wait_until_empty(Deadline deadline) {
  const MutexLock lock(mutex_);
  while (!closed_ && !entries_.empty()) {
    if (steady_clock::now() >= deadline) {
      return fail(Errc::kTimedOut, "the target did not acknowledge the end");
    }
    changed_.wait_until(mutex_, deadline);
  }
  if (closed_) return fail(Errc::kUnavailable, "the relay ended");
  return {};
}

std::uint64_t ResendWindow::link_bytes() const {
  const MutexLock lock(mutex_);
  return meter_.window();
}

double ResendWindow::link_bytes_per_second() const {
  const MutexLock lock(mutex_);
  return meter_.bytes_per_second();
}

void ResendWindow::close() {
  const MutexLock lock(mutex_);
  closed_ = true;
  changed_.notify_all();
}

}  // namespace samepage::migrator
