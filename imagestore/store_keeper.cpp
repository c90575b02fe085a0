#include "imagestore/store_keeper.h"

#include <algorithm>
#include <utility>

#include "core/log.h"

namespace samepage::imagestore {
namespace {

constexpr auto kRoundMax = std::chrono::milliseconds(100);
constexpr std::size_t kRechecksMax = 512;

}  // namespace

StoreKeeper::StoreKeeper(const Options& options, StoreControl& control, const Clock& clock,
                         OpenRemote open)
    : options_(options),
      control_(control),
      clock_(clock),
      open_(std::move(open)),
      thread_([this](const std::stop_token& stop) { run(stop); }) {}

StoreKeeper::~StoreKeeper() {
  thread_.request_stop();
  changed_.notify_all();
  thread_.join();
}

void StoreKeeper::keep(const StoreTarget& target) {
  const std::lock_guard lock(mutex_);
  auto& kept = kept_[target.node];
  if (kept != nullptr) return;
  kept = std::make_shared<Kept>();
  kept->target = target;
  kept->pause = options_.pause_min;
  changed_.notify_all();
}

void StoreKeeper::drop(const std::string& node) {
  const std::lock_guard lock(mutex_);
  const auto found = kept_.find(node);
  if (found == kept_.end()) return;
  for (const Upload& upload : found->second->uploads) waiting_bytes_ -= upload.object->size();
  found->second->uploads.clear();
  kept_.erase(found);
}

std::optional<std::pair<FabricTicket, Deadline>> StoreKeeper::take_ticket(const std::string& node) {
  const std::lock_guard lock(mutex_);
  const auto found = kept_.find(node);
  if (found == kept_.end() || !found->second->ticket) return std::nullopt;
  std::pair<FabricTicket, Deadline> taken(*std::move(found->second->ticket),
                                          found->second->expires);
  found->second->ticket.reset();
  return taken;
}

Deadline StoreKeeper::lease_end(const std::string& node) {
  const std::lock_guard lock(mutex_);
  const auto found = kept_.find(node);
  return found == kept_.end() ? Deadline{} : found->second->expires;
}

void StoreKeeper::lease_broke(const std::string& node) {
  const std::lock_guard lock(mutex_);
  const auto found = kept_.find(node);
  // A fresh ticket that nobody has taken is not the one that broke.
  if (found == kept_.end() || found->second->ticket) return;
  if (found->second->phase == Phase::kHeld) fall_back(*found->second);
}

void StoreKeeper::fall_back(Kept& kept) {
  kept.phase = Phase::kWanted;
  kept.expires = {};
  kept.ticket.reset();
  kept.next_try = clock_.now() + kept.pause;
  kept.pause = std::min(2 * kept.pause, options_.pause_max);
}

void StoreKeeper::upload(const std::string& node, Upload upload) {
  const std::lock_guard lock(mutex_);
  const auto found = kept_.find(node);
  const std::size_t bytes = upload.object->size();
  if (found == kept_.end() || waiting_bytes_ + bytes > options_.upload_bytes_max) {
    ++counts_.dropped;
    return;
  }
  waiting_bytes_ += bytes;
  found->second->uploads.push_back(std::move(upload));
  changed_.notify_all();
}

void StoreKeeper::recheck(const std::string& node, const ObjectName& name) {
  const std::lock_guard lock(mutex_);
  const auto found = kept_.find(node);
  if (found == kept_.end() || found->second->rechecks.size() >= kRechecksMax) return;
  found->second->rechecks.push_back(name);
  changed_.notify_all();
}

bool StoreKeeper::drain(Deadline deadline) {
  std::unique_lock lock(mutex_);
  return changed_.wait_until(lock, deadline, [this] {
    return busy_ == 0 && std::ranges::all_of(kept_, [](const auto& entry) {
             return entry.second->uploads.empty() && entry.second->rechecks.empty();
           });
  });
}

StoreKeeper::Counts StoreKeeper::counts() {
  const std::lock_guard lock(mutex_);
  return counts_;
}

void StoreKeeper::run(const std::stop_token& stop) {
  std::unique_lock lock(mutex_);
  while (!stop.stop_requested()) {
    if (!work(lock)) changed_.wait_for(lock, stop, kRoundMax, [] { return false; });
  }
}

bool StoreKeeper::work(std::unique_lock<std::mutex>& lock) {
  // Copies, because nodes may come and go while the lock is open.
  const auto all = kept_;
  bool has_worked = false;
  for (const auto& [node, kept] : all) {
    const auto now = clock_.now();
    const bool is_due = kept->phase == Phase::kWanted
                            ? kept->next_try <= now
                            : kept->expires - now <= 2 * kept->time / 3 && kept->next_try <= now;
    if (is_due) {
      tend_lease(*kept, lock);
      has_worked = true;
    }
    if (kept->phase != Phase::kHeld) continue;
    if (kept->uploads.empty() && kept->rechecks.empty()) continue;
    carry(node, *kept, lock);
    has_worked = true;
  }
  return has_worked;
}

void StoreKeeper::tend_lease(Kept& kept, std::unique_lock<std::mutex>& lock) {
  if (kept.phase == Phase::kWanted) {
    open_lease(kept, lock);
  } else {
    renew_lease(kept, lock);
  }
  changed_.notify_all();
}

void StoreKeeper::open_lease(Kept& kept, std::unique_lock<std::mutex>& lock) {
  bus::StoreRequest request;
  request.set_node(kept.target.node);
  request.mutable_open_lease()->set_fabric(kept.target.fabric);
  const auto asked_at = clock_.now();
  lock.unlock();
  auto answer = control_.call(request, std::chrono::steady_clock::now() + options_.call_max);
  lock.lock();
  if (!answer || !answer->reply.has_lease()) {
    log_debug("store lease refused node={} why=\"{}\"", kept.target.node,
              answer ? "a strange answer" : answer.error().message());
    return fall_back(kept);
  }
  const auto& lease = answer->reply.lease();
  kept.phase = Phase::kHeld;
  kept.lease = lease.lease();
  kept.epoch = lease.epoch();
  kept.time = std::chrono::milliseconds(lease.time_ms());
  kept.expires = asked_at + kept.time;
  kept.next_try = {};
  kept.pause = options_.pause_min;
  kept.ticket = from_message(lease.ticket(), std::move(answer->descriptor));
}

void StoreKeeper::renew_lease(Kept& kept, std::unique_lock<std::mutex>& lock) {
  bus::StoreRequest request;
  request.set_node(kept.target.node);
  request.mutable_renew_lease()->set_lease(kept.lease);
  request.mutable_renew_lease()->set_epoch(kept.epoch);
  const auto asked_at = clock_.now();
  lock.unlock();
  const auto answer = control_.call(request, std::chrono::steady_clock::now() + options_.call_max);
  lock.lock();
  if (answer) {
    kept.expires = asked_at + kept.time;
    return;
  }
  const auto code = answer.error().code();
  if (code == Errc::kNotFound || code == Errc::kInvalid || clock_.now() >= kept.expires) {
    return fall_back(kept);
  }
  // The lease is good until it expires: a node that does not answer may only be slow.
  kept.next_try = clock_.now() + kept.pause;
}

std::vector<StoreKeeper::Upload> StoreKeeper::take_batch(Kept& kept) {
  std::vector<Upload> batch;
  std::size_t bytes = 0;
  while (!kept.uploads.empty()) {
    const std::size_t size = kept.uploads.front().object->size();
    if (!batch.empty() && bytes + size > options_.batch_bytes_max) break;
    bytes += size;
    batch.push_back(std::move(kept.uploads.front()));
    kept.uploads.pop_front();
  }
  waiting_bytes_ -= bytes;
  return batch;
}

void StoreKeeper::carry(const std::string& node, Kept& kept, std::unique_lock<std::mutex>& lock) {
  const auto batch = take_batch(kept);
  const auto names = std::exchange(kept.rechecks, {});
  const std::uint64_t lease = kept.lease;
  ++busy_;
  lock.unlock();
  // Rechecks first: a damaged extent must be out of the index before a good copy can come in.
  const auto rechecked = names.empty() ? Result<void>() : recheck_batch(kept.target, lease, names);
  const auto uploaded =
      batch.empty() ? Result<std::uint64_t>(0) : upload_batch(kept.target, lease, batch);
  lock.lock();
  --busy_;
  if (uploaded) {
    counts_.uploaded += *uploaded;
  } else {
    counts_.dropped += batch.size();
    log_debug("upload left out node={} why=\"{}\"", node, uploaded.error().message());
  }
  const bool is_lost = (!uploaded && uploaded.error().code() == Errc::kNotFound) ||
                       (!rechecked && rechecked.error().code() == Errc::kNotFound);
  if (is_lost) fall_back(kept);
  changed_.notify_all();
}

Result<std::uint64_t> StoreKeeper::upload_batch(const StoreTarget& target, std::uint64_t lease,
                                                const std::vector<Upload>& batch) {
  bus::StoreRequest opening;
  opening.set_node(target.node);
  opening.mutable_open_window()->set_lease(lease);
  for (const Upload& upload : batch) {
    bus::StoredExtent& extent = *opening.mutable_open_window()->add_extents();
    extent.set_name(upload.name.bytes.data(), upload.name.bytes.size());
    extent.set_bytes(static_cast<std::uint32_t>(upload.object->size()));
  }
  auto opened = TRY(control_.call(opening, std::chrono::steady_clock::now() + options_.call_max));
  const bus::StoreReply::Window& window = opened.reply.window();
  if (window.wanted().empty()) return 0;

  std::vector<Upload> wanted;
  std::uint64_t bytes = 0;
  bus::StoreRequest request;
  request.set_node(target.node);
  request.mutable_publish()->set_lease(lease);
  request.mutable_publish()->set_window(window.window());
  for (const std::uint32_t position : window.wanted()) {
    if (position >= batch.size())
      return fail(Errc::kInvalid, "a store wants what it was not offered");
    wanted.push_back(batch[position]);
    bus::StoredExtent& extent = *request.mutable_publish()->add_extents();
    extent = opening.open_window().extents(static_cast<int>(position));
    extent.set_offset(bytes);
    bytes += extent.bytes();
  }
  TRY(write_window(from_message(window.ticket(), std::move(opened.descriptor)), wanted));
  const auto published =
      TRY(control_.call(request, std::chrono::steady_clock::now() + options_.call_max));
  return published.reply.published().extents();
}

Result<void> StoreKeeper::write_window(FabricTicket ticket, const std::vector<Upload>& batch) {
  const auto deadline = std::chrono::steady_clock::now() + options_.call_max;
  const auto memory = TRY(open_(std::move(ticket), FabricAccess::kWrite, deadline));
  std::uint64_t offset = 0;
  std::size_t next = 0;
  std::size_t ended = 0;
  std::vector<RemoteDone> done;
  while (ended < batch.size()) {
    std::vector<RemoteWrite> writes;
    const std::size_t room = memory->operations_max() - memory->under_way();
    for (; next < batch.size() && writes.size() < room; ++next) {
      writes.push_back({.tag = next, .offset = offset, .from = *batch[next].object});
      offset += batch[next].object->size();
    }
    if (!writes.empty()) TRY(memory->write_batch(writes));
    done.clear();
    memory->poll(done, deadline);
    for (const RemoteDone& write : done) {
      TRY(write.result);
      ++ended;
    }
    if (done.empty() && std::chrono::steady_clock::now() >= deadline) {
      return fail(Errc::kTimedOut, "the store node took too long to take extents");
    }
  }
  return {};
}

Result<void> StoreKeeper::recheck_batch(const StoreTarget& target, std::uint64_t lease,
                                        const std::vector<ObjectName>& names) {
  bus::StoreRequest request;
  request.set_node(target.node);
  request.mutable_recheck()->set_lease(lease);
  for (const ObjectName& name : names) {
    request.mutable_recheck()->add_names(name.bytes.data(), name.bytes.size());
  }
  TRY(control_.call(request, std::chrono::steady_clock::now() + options_.call_max));
  return {};
}

}  // namespace samepage::imagestore
