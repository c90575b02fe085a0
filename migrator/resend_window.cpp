#include "migrator/resend_window.h"

#include <chrono>
#include <utility>

#include "core/check.h"

namespace samepage::migrator {

bool ResendWindow::has_room(std::size_t wire_bytes) {
  if (entries_.empty()) return true;
  return entries_.size() < limits_.batches_max &&
         wire_bytes_ + wire_bytes <= limits_.wire_bytes_max;
}

Result<void> ResendWindow::add(Entry entry, Deadline deadline) {
  const MutexLock lock(mutex_);
  while (!closed_ && !has_room(entry.wire_bytes)) {
    if (std::chrono::steady_clock::now() >= deadline) {
      return fail(Errc::kTimedOut, "the target stopped acknowledging");
    }
    changed_.wait_until(mutex_, deadline);
  }
  if (closed_) return fail(Errc::kUnavailable, "the relay ended");
  CHECK(entry.sequence == next_sequence_);
  ++next_sequence_;
  wire_bytes_ += entry.wire_bytes;
  entries_.push_back(std::move(entry));
  return {};
}

Result<void> ResendWindow::acknowledge(std::uint64_t sequence) {
  const MutexLock lock(mutex_);
  if (entries_.empty() || sequence < entries_.front().sequence || sequence >= next_sequence_) {
    return fail(Errc::kCorrupt, "an acknowledgement of what is not under way");
  }
  while (!entries_.empty() && entries_.front().sequence <= sequence) {
    wire_bytes_ -= entries_.front().wire_bytes;
    buffers_.push_back(std::move(entries_.front().stream));
    entries_.pop_front();
  }
  changed_.notify_all();
  return {};
}

Result<ResentPages> ResendWindow::pages(const MissingPages& missing) {
  const MutexLock lock(mutex_);
  if (entries_.empty() || missing.sequence < entries_.front().sequence ||
      missing.sequence >= next_sequence_) {
    return fail(Errc::kCorrupt, "a request for pages of a batch that is not under way");
  }
  const Entry& entry = entries_[missing.sequence - entries_.front().sequence];
  ResentPages resent{.sequence = missing.sequence, .pages = {}};
  for (const std::uint32_t ref : missing.refs) {
    if (ref >= entry.ref_offsets.size()) {
      return fail(Errc::kCorrupt, "a request for a page that was not referred to");
    }
    const auto page = std::span(entry.stream).subspan(entry.ref_offsets[ref], kPageSize);
    resent.pages.insert(resent.pages.end(), page.begin(), page.end());
  }
  return resent;
}

Result<void> ResendWindow::wait_until_empty(Deadline deadline) {
  const MutexLock lock(mutex_);
  while (!closed_ && !entries_.empty()) {
    if (std::chrono::steady_clock::now() >= deadline) {
      return fail(Errc::kTimedOut, "the target did not acknowledge the end");
    }
    changed_.wait_until(mutex_, deadline);
  }
  if (closed_) return fail(Errc::kUnavailable, "the relay ended");
  return {};
}

std::vector<std::byte> ResendWindow::take_buffer() {
  const MutexLock lock(mutex_);
  if (buffers_.empty()) return {};
  std::vector<std::byte> buffer = std::move(buffers_.back());
  buffers_.pop_back();
  return buffer;
}

void ResendWindow::close() {
  const MutexLock lock(mutex_);
  closed_ = true;
  changed_.notify_all();
}

}  // namespace samepage::migrator
