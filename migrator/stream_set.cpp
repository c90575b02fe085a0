#include "migrator/stream_set.h"

#include <algorithm>
#include <utility>

namespace samepage::migrator {
namespace {

void add_up(RelayCounters& sum, const RelayCounters& one) {
  sum.stream_bytes += one.stream_bytes;
  sum.wire_bytes += one.wire_bytes;
  sum.page_refs += one.page_refs;
  sum.page_deltas += one.page_deltas;
  sum.page_literals += one.page_literals;
  sum.zero_pages += one.zero_pages;
  sum.pages_resent += one.pages_resent;
  sum.template_pages += one.template_pages;
}

}  // namespace

bool StreamSet::add(StreamCarrierParts parts, std::size_t streams_max) {
  const MutexLock lock(mutex_);
  if (stopped_ || streams_.size() >= streams_max) return false;
  streams_.push_back(std::make_unique<StreamCarrier>(std::move(parts)));
  return true;
}

void StreamSet::stop() {
  const MutexLock lock(mutex_);
  stopped_ = true;
  for (const auto& stream : streams_) stream->stop();
}

bool StreamSet::delivered() const {
  const MutexLock lock(mutex_);
  return !streams_.empty() && std::all_of(streams_.begin(), streams_.end(),
                                          [](const auto& stream) { return stream->delivered(); });
}

RelayCounters StreamSet::counters() const {
  const MutexLock lock(mutex_);
  RelayCounters sum = cleared_;
  for (const auto& stream : streams_) add_up(sum, stream->counters());
  return sum;
}

void StreamSet::clear() {
  std::vector<std::unique_ptr<StreamCarrier>> streams;
  {
    const MutexLock lock(mutex_);
    stopped_ = true;
    for (const auto& stream : streams_) add_up(cleared_, stream->counters());
    streams.swap(streams_);
  }
  // Destroying a stream joins its thread, whose on_end may ask this set.
}

}  // namespace samepage::migrator
