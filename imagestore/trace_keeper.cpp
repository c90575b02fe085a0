#include "imagestore/trace_keeper.h"

#include <condition_variable>
#include <mutex>
#include <utility>

#include "core/log.h"

namespace samepage::imagestore {
namespace {

using SteadyClock = std::chrono::steady_clock;

void sleep(const std::stop_token& stop, std::chrono::milliseconds time) {
  std::mutex mutex;
  std::condition_variable_any never;
  std::unique_lock lock(mutex);
  never.wait_for(lock, stop, time, [] { return false; });
}

}  // namespace

TraceKeeper::TraceKeeper(Options options, TraceRecorder& recorder, BaseReader& reader)
    : options_(std::move(options)),
      recorder_(recorder),
      reader_(reader),
      began_(SteadyClock::now()),
      grew_(began_) {
  trace_.version = options_.version;
}

TraceKeeper::~TraceKeeper() = default;

bool TraceKeeper::tend(const std::stop_token& stop) {
  if (const auto exchanged = exchange(); !exchanged) {
    // Traces only make boots faster: whatever is wrong, the disk works without them.
    log_debug("boot traces left out why=\"{}\"", exchanged.error().message());
    source_.reset();
  }
  sleep(stop, options_.interval);
  const auto now = SteadyClock::now();
  const bool is_over = now - began_ > options_.boot_max ||
                       (!trace_.pages.empty() && now - grew_ > options_.quiet_max);
  return !is_over && !stop.stop_requested();
}

Result<void> TraceKeeper::exchange() {
  if (!source_) source_ = TRY(VersionSource::open(options_.source, options_.version));
  TRY(follow());
  TRY(record());
  return publish();
}

/// What others have read of this version, or, as long as nobody has, of others.
Result<void> TraceKeeper::follow() {
  ImageStore& store = source_->store();
  const std::uint64_t above = std::max<std::uint64_t>(followed_, trace_.pages.size());
  const auto body = TRY(store.catalog().trace(options_.version, above));
  if (body) {
    const BootTrace trace = TRY(decode_trace(*body, store.keys()));
    if (trace.version == options_.version) prefetch(trace);
    return {};
  }
  if (std::exchange(asked_others_, true) || followed_ > 0) return {};
  return follow_other_versions(store);
}

Result<void> TraceKeeper::follow_other_versions(ImageStore& store) {
  for (const VersionId& version : TRY(store.catalog().traced_versions(options_.image))) {
    const auto body = TRY(store.catalog().trace(version, 0));
    if (!body) continue;
    const BootTrace trace = TRY(decode_trace(*body, store.keys()));
    const BootTrace followed =
        TRY(follow_trace(store.origin(), store.keys(), trace, options_.version));
    // Another image's boot that reads mostly other pages teaches nothing.
    if (followed.pages.size() * 2 < trace.pages.size()) continue;
    prefetch(followed);
    return {};
  }
  return {};
}

void TraceKeeper::prefetch(const BootTrace& trace) {
  const auto pages = trace.numbers();
  const std::size_t known = std::min<std::size_t>(followed_, pages.size());
  reader_.prefetch(std::span(pages).subspan(known));
  followed_ = std::max<std::uint64_t>(followed_, pages.size());
}

/// What the guest has read since the last time, with the pages' names; pages of zeros are left out.
Result<void> TraceKeeper::record() {
  const auto fresh = recorder_.since(taken_);
  if (fresh.empty()) return {};
  for (const std::uint64_t page : fresh) {
    ++taken_;
    if (page >= source_->manifest().pages()) continue;
    const auto ref = TRY(source_->manifest().find(page));
    if (ref) trace_.pages.push_back({.page = page, .digest = ref->digest});
  }
  grew_ = SteadyClock::now();
  return {};
}

Result<void> TraceKeeper::publish() {
  if (trace_.pages.size() == published_) return {};
  ImageStore& store = source_->store();
  TRY(store.catalog().put_trace(options_.version, trace_.pages.size(),
                                encode_trace(trace_, store.keys())));
  published_ = trace_.pages.size();
  return {};
}

}  // namespace samepage::imagestore
