#include "imagestore/store_scout.h"

#include <algorithm>
#include <condition_variable>

#include <sys/prctl.h>

#include "core/log.h"

namespace samepage::imagestore {

StoreScout::StoreScout(const Options& options, std::unique_ptr<StoreControl> control)
    : options_(options), control_(std::move(control)), thread_([this](const std::stop_token& stop) {
        ::prctl(PR_SET_NAME, "store-scout");
        run(stop);
      }) {}

StoreScout::~StoreScout() = default;

std::optional<StoreScout::News> StoreScout::take_news() {
  if (!has_fresh_.load(std::memory_order_acquire)) return std::nullopt;
  const std::lock_guard lock(mutex_);
  has_fresh_ = false;
  return std::exchange(fresh_, std::nullopt);
}

void StoreScout::tell(const Reads& reads) {
  const std::lock_guard lock(mutex_);
  reads_ = reads;
}

void StoreScout::run(const std::stop_token& stop) {
  std::mutex mutex;
  std::condition_variable_any never;
  std::unique_lock lock(mutex);
  while (!stop.stop_requested()) {
    ask_ring();
    if (std::chrono::steady_clock::now() >= next_warm_) ask_warm();
    tell_reads();
    never.wait_for(lock, stop, options_.ring_interval, [] { return false; });
  }
}

std::optional<bus::StoreReply> StoreScout::call(const bus::StoreRequest& request) {
  auto answer = control_->call(request, std::chrono::steady_clock::now() + options_.call_max);
  if (answer) return std::move(answer->reply);
  log_debug("the store has no news why=\"{}\"", answer.error().message());
  return std::nullopt;
}

void StoreScout::ask_ring() {
  bus::StoreRequest request;
  request.mutable_ask_ring();
  const auto reply = call(request);
  if (!reply || !reply->has_ring()) return;
  std::string seen = reply->ring().SerializeAsString();
  if (seen == ring_seen_) return;
  ring_seen_ = std::move(seen);
  auto ring = Ring::from_message(reply->ring());
  if (!ring) return log_warning("the store's ring was left out why=\"{}\"", ring.error().message());
  news_.own_node = reply->ring().hosts().empty() ? "" : reply->ring().hosts(0);
  news_.ring = *std::move(ring);
  news_.hot.clear();
  for (const std::string& bytes : reply->ring().hot()) {
    if (const auto name = read_name(bytes)) news_.hot.insert(*name);
  }
  publish();
}

void StoreScout::ask_warm() {
  bus::StoreRequest request;
  request.mutable_ask_warm()->set_version(to_hex(options_.version));
  const auto reply = call(request);
  // Without a placer there is nobody to name neighbours: ask again soon, not at once.
  next_warm_ = std::chrono::steady_clock::now() +
               (reply ? options_.warm_interval : 5 * options_.ring_interval);
  if (!reply) return;
  const auto& hosts = reply->warm().hosts();
  std::vector<std::string> neighbours(hosts.begin(), hosts.end());
  if (neighbours.size() > options_.neighbours_max) neighbours.resize(options_.neighbours_max);
  if (neighbours == news_.neighbours) return;
  news_.neighbours = std::move(neighbours);
  publish();
}

void StoreScout::tell_reads() {
  Reads reads;
  {
    const std::lock_guard lock(mutex_);
    reads.swap(reads_);
  }
  if (reads.empty()) return;
  bus::StoreRequest request;
  request.mutable_tell_reads()->set_version(to_hex(options_.version));
  for (const auto& [name, count] : reads) {
    bus::HotExtent& extent = *request.mutable_tell_reads()->add_hot();
    extent.set_name(name.bytes.data(), name.bytes.size());
    extent.set_reads(count);
  }
  call(request);
}

void StoreScout::publish() {
  const std::lock_guard lock(mutex_);
  fresh_ = news_;
  has_fresh_.store(true, std::memory_order_release);
}

}  // namespace samepage::imagestore
