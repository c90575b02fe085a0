#include "imagestore/store_node.h"

#include <algorithm>
#include <utility>

#include "core/log.h"
#include "imagestore/shm_fabric.h"

namespace samepage::imagestore {
namespace {

constexpr int kExtentsPerPublishMax = 2'048;
constexpr int kNamesPerRecheckMax = 1'024;

StoreAnswer published(std::size_t extents) {
  StoreAnswer answer;
  answer.reply.mutable_published()->set_extents(static_cast<std::uint32_t>(extents));
  return answer;
}

}  // namespace

Result<std::unique_ptr<StoreNode>> StoreNode::create(const Options& options,
                                                     std::vector<DomainKeys> keys,
                                                     const Clock& clock) {
  auto arena = TRY(Arena::create(options.arena));
  std::unique_ptr<StoreNode> node(new StoreNode(options, std::move(keys), clock, std::move(arena)));
  const MutexLock lock(node->mutex_);
  node->fabrics_.push_back(std::make_unique<ShmServer>(ShmServer::Options{}, node->arena_->memory(),
                                                       node->arena_->descriptor()));
  if (options.ofi) {
    node->fabrics_.push_back(TRY(OfiServer::create(*options.ofi, node->arena_->memory())));
  }
  return node;
}

StoreNode::StoreNode(const Options& options, std::vector<DomainKeys> keys, const Clock& clock,
                     std::unique_ptr<Arena> arena)
    : options_(options), clock_(clock), keys_(std::move(keys)), arena_(std::move(arena)) {}

Result<StoreAnswer> StoreNode::serve(const StoreCaller& caller, const bus::StoreRequest& request) {
  const MutexLock lock(mutex_);
  sweep_locked();
  auto answer = dispatch(caller, request);
  if (!answer && answer.error().code() != Errc::kUnavailable) {
    ++refused_;
    log_warning("store request refused caller=\"{}\" why=\"{}\"", caller.name,
                answer.error().message());
  }
  return answer;
}

Result<StoreAnswer> StoreNode::dispatch(const StoreCaller& caller,
                                        const bus::StoreRequest& request) {
  switch (request.kind_case()) {
    case bus::StoreRequest::kOpenLease:
      return open_lease(caller, request.open_lease());
    case bus::StoreRequest::kRenewLease:
      return renew(caller, request.renew_lease());
    case bus::StoreRequest::kCloseLease:
      end_lease(TRY(find_lease(caller, request.close_lease().lease())));
      return published(0);
    case bus::StoreRequest::kOpenWindow:
      return open_window(caller, request.open_window());
    case bus::StoreRequest::kPublish:
      return publish(caller, request.publish());
    case bus::StoreRequest::kRecheck:
      return recheck(caller, request.recheck());
    default:
      return fail(Errc::kInvalid, "this store does not know such a request");
  }
}

Result<StoreNode::Leases::iterator> StoreNode::find_lease(const StoreCaller& caller,
                                                          std::uint64_t lease) {
  const auto found = leases_.find(lease);
  if (found == leases_.end() || found->second.caller != caller.name) {
    return fail(Errc::kNotFound, "no such lease, or not any more");
  }
  return found;
}

Result<StoreAnswer> StoreNode::open_lease(const StoreCaller& caller,
                                          const bus::StoreRequest::OpenLease& request) {
  if (leases_.size() >= options_.leases_max) {
    return fail(Errc::kUnavailable, "as many clients as can be have leases already");
  }
  const auto fabric = std::ranges::find_if(
      fabrics_, [&](const auto& known) { return known->name() == request.fabric(); });
  if (fabric == fabrics_.end()) {
    return fail(Errc::kInvalid, "this store has no fabric \"" + request.fabric() + "\"");
  }
  const std::uint64_t id = TRY(random_key());
  FabricTicket ticket = TRY((*fabric)->admit());
  leases_[id] = {.caller = caller.name,
                 .epoch = epoch_,
                 .fabric = fabric->get(),
                 .key = ticket.key,
                 .expires = clock_.now() + options_.lease_time};
  StoreAnswer answer;
  auto& lease = *answer.reply.mutable_lease();
  lease.set_lease(id);
  lease.set_epoch(epoch_);
  lease.set_time_ms(static_cast<std::uint32_t>(options_.lease_time.count()));
  *lease.mutable_ticket() = to_message(ticket);
  answer.descriptor = std::move(ticket.descriptor);
  return answer;
}

Result<StoreAnswer> StoreNode::renew(const StoreCaller& caller,
                                     const bus::StoreRequest::RenewLease& request) {
  const auto lease = TRY(find_lease(caller, request.lease()));
  if (request.epoch() != epoch_) return fail(Errc::kNotFound, "the lease is of an earlier epoch");
  lease->second.expires = clock_.now() + options_.lease_time;
  StoreAnswer answer;
  answer.reply.mutable_lease()->set_lease(request.lease());
  answer.reply.mutable_lease()->set_epoch(epoch_);
  answer.reply.mutable_lease()->set_time_ms(
      static_cast<std::uint32_t>(options_.lease_time.count()));
  return answer;
}

Result<StoreAnswer> StoreNode::open_window(const StoreCaller& caller,
                                           const bus::StoreRequest::OpenWindow& request) {
  const auto lease = TRY(find_lease(caller, request.lease()));
  if (lease->second.windows >= options_.windows_per_lease_max) {
    return fail(Errc::kUnavailable, "as many windows as a lease may have are open");
  }
  StoreAnswer answer;
  auto& reply = *answer.reply.mutable_window();
  auto coming = TRY(choose_wanted(request, reply));
  if (coming.empty()) return answer;
  std::uint64_t bytes = 0;
  for (const std::uint32_t position : reply.wanted()) {
    bytes += request.extents(static_cast<int>(position)).bytes();
  }
  const auto now = clock_.now();
  const auto expires = now + options_.window_time;
  const std::uint64_t id = TRY(random_key());
  const auto region = TRY(arena_->reserve(bytes, expires, now));
  auto ticket = lease->second.fabric->open_window(region.offset, region.bytes);
  if (!ticket) {
    arena_->release(region.id);
    return tl::unexpected(std::move(ticket).error());
  }
  coming_.insert(coming.begin(), coming.end());
  windows_[id] = {.lease = request.lease(),
                  .fabric = lease->second.fabric,
                  .key = ticket->key,
                  .region = region,
                  .expires = expires,
                  .coming = std::move(coming)};
  ++lease->second.windows;
  reply.set_window(id);
  *reply.mutable_ticket() = to_message(*ticket);
  answer.descriptor = std::move(ticket->descriptor);
  return answer;
}

Result<std::vector<ObjectName>> StoreNode::choose_wanted(
    const bus::StoreRequest::OpenWindow& request, bus::StoreReply::Window& window) {
  if (request.extents_size() > kExtentsPerPublishMax) {
    return fail(Errc::kInvalid, "too many extents are written at once");
  }
  std::vector<ObjectName> wanted;
  for (int i = 0; i < request.extents_size(); ++i) {
    const bus::StoredExtent& extent = request.extents(i);
    const auto name = TRY(read_name(extent.name()));
    if (extent.bytes() == 0 || extent.bytes() > kObjectBytesMax) {
      return fail(Errc::kInvalid, "no extent has " + std::to_string(extent.bytes()) + " bytes");
    }
    if (arena_->find(name)) {
      // Whoever offers it has not found it: its entry may be damaged.
      arena_->restore(name);
    } else if (!coming_.contains(name) && std::ranges::count(wanted, name) == 0) {
      wanted.push_back(name);
      window.add_wanted(static_cast<std::uint32_t>(i));
    }
  }
  return wanted;
}

void StoreNode::stop_expecting(const Window& window) {
  for (const ObjectName& name : window.coming) coming_.erase(name);
}

Result<StoreAnswer> StoreNode::publish(const StoreCaller& caller,
                                       const bus::StoreRequest::Publish& request) {
  TRY(find_lease(caller, request.lease()));
  const auto found = windows_.find(request.window());
  if (found == windows_.end() || found->second.lease != request.lease()) {
    return fail(Errc::kNotFound, "no such window, or not any more");
  }
  // Closed first, so that what is verified is what will be read.
  const Window window = std::move(found->second);
  const auto closed = window.fabric->withdraw(window.key);
  --leases_.at(window.lease).windows;
  windows_.erase(found);
  stop_expecting(window);
  auto entries = closed ? describe_all(window.region, request)
                        : Result<std::vector<IndexEntry>>(tl::unexpected(closed.error()));
  if (!entries) {
    arena_->release(window.region.id);
    return tl::unexpected(std::move(entries).error());
  }
  return published(TRY(arena_->publish(window.region.id, *entries)));
}

Result<std::vector<IndexEntry>> StoreNode::describe_all(
    const Arena::Region& region, const bus::StoreRequest::Publish& request) const {
  if (request.extents_size() > kExtentsPerPublishMax) {
    return fail(Errc::kInvalid, "too many extents are published at once");
  }
  std::vector<IndexEntry> entries;
  for (const bus::StoredExtent& extent : request.extents()) {
    const bool is_inside = extent.bytes() > 0 && extent.bytes() <= region.bytes &&
                           extent.offset() <= region.bytes - extent.bytes();
    if (!is_inside) return fail(Errc::kInvalid, "an extent lies outside of its window");
    const auto name = TRY(read_name(extent.name()));
    const std::uint64_t offset = region.offset + extent.offset();
    auto entry = TRY(describe(name, arena_->memory().subspan(offset, extent.bytes())));
    entry.offset = offset;
    entries.push_back(entry);
  }
  return entries;
}

Result<IndexEntry> StoreNode::describe(const ObjectName& name,
                                       std::span<const std::byte> bytes) const {
  ByteReader reader(bytes);
  const auto header = TRY(read_header(reader));
  const auto keys = std::ranges::find_if(
      keys_, [&](const DomainKeys& known) { return known.id == header.key_id; });
  if (keys == keys_.end()) {
    return fail(Errc::kInvalid, "the extent is of a sharing domain that this store does not know");
  }
  return describe_object(name, bytes, *keys);
}

Result<StoreAnswer> StoreNode::recheck(const StoreCaller& caller,
                                       const bus::StoreRequest::Recheck& request) {
  TRY(find_lease(caller, request.lease()));
  if (request.names_size() > kNamesPerRecheckMax) {
    return fail(Errc::kInvalid, "too many names at once");
  }
  std::size_t good = 0;
  for (const std::string& bytes : request.names()) {
    const auto name = TRY(read_name(bytes));
    const auto entry = arena_->find(name);
    if (!entry) continue;
    if (const auto described = describe(name, arena_->object(*entry)); !described) {
      log_warning("extent damaged in memory, dropped name={} why=\"{}\"", to_hex(name),
                  described.error().message());
      arena_->retract(name);
      continue;
    }
    arena_->restore(name);
    ++good;
  }
  return published(good);
}

StoreNode::Windows::iterator StoreNode::end_window(Windows::iterator window) {
  static_cast<void>(window->second.fabric->withdraw(window->second.key));
  arena_->release(window->second.region.id);
  stop_expecting(window->second);
  if (const auto lease = leases_.find(window->second.lease); lease != leases_.end()) {
    --lease->second.windows;
  }
  return windows_.erase(window);
}

StoreNode::Leases::iterator StoreNode::end_lease(Leases::iterator lease) {
  for (auto window = windows_.begin(); window != windows_.end();) {
    window = window->second.lease == lease->first ? end_window(window) : std::next(window);
  }
  static_cast<void>(lease->second.fabric->withdraw(lease->second.key));
  return leases_.erase(lease);
}

void StoreNode::sweep_locked() {
  const auto now = clock_.now();
  for (auto window = windows_.begin(); window != windows_.end();) {
    window = window->second.expires <= now ? end_window(window) : std::next(window);
  }
  for (auto lease = leases_.begin(); lease != leases_.end();) {
    lease = lease->second.expires <= now ? end_lease(lease) : std::next(lease);
  }
}

void StoreNode::sweep() {
  const MutexLock lock(mutex_);
  sweep_locked();
}

void StoreNode::forget(const StoreCaller& caller) {
  revoke(caller.name);
}

void StoreNode::revoke(const std::string& caller) {
  revoke_if([&](const std::string& other) { return other == caller; });
}

void StoreNode::revoke_if(const std::function<bool(const std::string& caller)>& is_out) {
  const MutexLock lock(mutex_);
  for (auto lease = leases_.begin(); lease != leases_.end();) {
    lease = is_out(lease->second.caller) ? end_lease(lease) : std::next(lease);
  }
}

void StoreNode::revoke_all() {
  const MutexLock lock(mutex_);
  ++epoch_;
  for (auto lease = leases_.begin(); lease != leases_.end();) lease = end_lease(lease);
}

void StoreNode::set_keys(std::vector<DomainKeys> keys) {
  const MutexLock lock(mutex_);
  keys_ = std::move(keys);
}

bus::StoreReport StoreNode::report() {
  const MutexLock lock(mutex_);
  const auto counts = arena_->counts();
  bus::StoreReport report;
  report.set_is_node(true);
  report.set_capacity_bytes(arena_->geometry().data_bytes);
  report.set_extents(counts.extents);
  report.set_extent_bytes(counts.extent_bytes);
  report.set_evicted(counts.evicted);
  report.set_leases(static_cast<std::uint32_t>(leases_.size()));
  report.set_refused(refused_);
  return report;
}

std::span<std::byte> StoreNode::memory() {
  return arena_->memory();
}

}  // namespace samepage::imagestore
