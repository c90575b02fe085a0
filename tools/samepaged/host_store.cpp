#include "tools/samepaged/host_store.h"

#include <algorithm>
#include <set>
#include <utility>
#include <vector>

#include "core/log.h"
#include "imagestore/domain_key.h"

namespace samepage::agent {
namespace {

using imagestore::StoreAnswer;
using imagestore::StoreCaller;

constexpr const char* kHostCaller = "host ";
constexpr std::size_t kWarmMax = 256;
constexpr std::size_t kReadsMax = 65'536;
constexpr std::size_t kHotReported = 256;
constexpr auto kWarmFor = std::chrono::hours(2);

StoreAnswer nothing() {
  StoreAnswer answer;
  answer.reply.mutable_published();
  return answer;
}

}  // namespace

HostStore::HostStore(const Options& options, Ask ask, const Clock& clock)
    : options_(options), ask_(std::move(ask)), clock_(clock) {}

Result<std::unique_ptr<HostStore>> HostStore::create(const Options& options, Ask ask,
                                                     const Clock& clock) {
  std::unique_ptr<HostStore> store(new HostStore(options, std::move(ask), clock));
  if (options.node_mib == 0) return store;
  imagestore::StoreNode::Options node;
  node.arena.data_bytes = options.node_mib << 20U;
  node.arena.use_huge_pages = options.use_huge_pages;
  node.ofi =
      imagestore::OfiServer::Options{.provider = options.provider, .address = options.address};
  auto made = imagestore::StoreNode::create(node, {}, clock);
  if (!made) return tl::unexpected(std::move(made).error().within("set up the store node"));
  store->node_ = *std::move(made);
  log_info("store node ready memory_mib={} huge_pages={} provider=\"{}\" address={}",
           options.node_mib, store->node_->has_huge_pages(), options.provider, options.address);
  return store;
}

Result<void> HostStore::listen() {
  listener_ = TRY(imagestore::StoreListener::create({.path = options_.socket_path}, *this));
  return {};
}

bool HostStore::is_for_own_node(const bus::StoreRequest& request) {
  const MutexLock lock(mutex_);
  return request.node().empty() || request.node() == host_;
}

Result<StoreAnswer> HostStore::serve(const StoreCaller& caller, const bus::StoreRequest& request) {
  switch (request.kind_case()) {
    case bus::StoreRequest::kAskRing: {
      StoreAnswer answer;
      const MutexLock lock(mutex_);
      *answer.reply.mutable_ring() = ring_;
      answer.reply.mutable_ring()->clear_hosts();
      answer.reply.mutable_ring()->add_hosts(host_);
      if (!local_key_ && read_local_key()) give_keys();  // The first import made one since.
      return answer;
    }
    case bus::StoreRequest::kAskWarm:
      return ask_warm(request.ask_warm());
    case bus::StoreRequest::kTellReads:
      note_reads(request.tell_reads());
      return nothing();
    case bus::StoreRequest::kAskStatus:
      if (is_for_own_node(request)) {
        StoreAnswer answer;
        if (node_) *answer.reply.mutable_status() = node_->report();
        answer.reply.mutable_status()->set_is_node(node_ != nullptr);
        return answer;
      }
      return pass_on(request);
    default:
      if (!is_for_own_node(request)) return pass_on(request);
      // Not an offence: the asker cannot know before.
      if (!node_) return fail(Errc::kUnavailable, "this host lends no memory to the store");
      return node_->serve(caller, request);
  }
}

void HostStore::forget(const StoreCaller& caller) {
  if (node_) node_->forget(caller);
}

Result<StoreAnswer> HostStore::pass_on(const bus::StoreRequest& request) {
  bus::Envelope envelope;
  *envelope.mutable_store_request() = request;
  envelope.mutable_store_request()->clear_caller();
  auto reply = ask_(std::move(envelope), clock_.now() + options_.ask_max);
  if (!reply) return tl::unexpected(std::move(reply).error());
  StoreAnswer answer;
  answer.reply = std::move(*reply->mutable_store_reply());
  if (answer.reply.has_failure()) {
    return tl::unexpected(imagestore::from_failure(answer.reply.failure()));
  }
  return answer;
}

Result<bus::Envelope> HostStore::serve_host(const bus::StoreRequest& request) {
  if (!node_) return fail(Errc::kUnavailable, "this host lends no memory to the store");
  if (request.has_open_lease() && request.open_lease().fabric() == "shm") {
    return fail(Errc::kInvalid, "shared memory does not reach another host");
  }
  bus::Envelope envelope;
  if (request.has_ask_status()) {
    *envelope.mutable_store_reply()->mutable_status() = node_->report();
    return envelope;
  }
  auto answer = node_->serve({.name = kHostCaller + request.caller()}, request);
  if (answer) {
    *envelope.mutable_store_reply() = std::move(answer->reply);
  } else {
    *envelope.mutable_store_reply()->mutable_failure() = imagestore::to_failure(answer.error());
  }
  return envelope;
}

Result<StoreAnswer> HostStore::ask_warm(const bus::StoreRequest::AskWarm& request) {
  {
    const MutexLock lock(mutex_);
    note_warm(request.version());
  }
  bus::Envelope envelope;
  envelope.mutable_warm_query()->set_version(request.version());
  auto reply = ask_(std::move(envelope), clock_.now() + options_.ask_max);
  if (!reply) return tl::unexpected(std::move(reply).error());
  StoreAnswer answer;
  *answer.reply.mutable_warm() = std::move(*reply->mutable_warm_hosts());
  return answer;
}

void HostStore::note_warm(const std::string& version) {
  if (version.size() != 2 * sizeof(imagestore::ObjectName::bytes)) return;
  if (warm_.size() >= kWarmMax && !warm_.contains(version)) {
    warm_.erase(
        std::ranges::min_element(warm_, {}, [](const auto& entry) { return entry.second; }));
  }
  warm_[version] = clock_.now();
}

void HostStore::note_reads(const bus::StoreRequest::TellReads& request) {
  const MutexLock lock(mutex_);
  if (!request.version().empty()) note_warm(request.version());
  for (const bus::HotExtent& extent : request.hot()) {
    if (extent.name().size() != sizeof(imagestore::ObjectName::bytes)) continue;
    if (reads_.size() < kReadsMax || reads_.contains(extent.name())) {
      reads_[extent.name()] += std::min<std::uint64_t>(extent.reads(), 1U << 30U);
    }
  }
}

void HostStore::set_welcome(const std::string& host,
                            const std::map<std::string, SharingDomain>& domains) {
  const MutexLock lock(mutex_);
  host_ = host;
  fleet_keys_.clear();
  for (const auto& [name, domain] : domains) fleet_keys_.emplace_back(domain.key);
  read_local_key();
  give_keys();
}

bool HostStore::read_local_key() {
  if (const auto key = imagestore::read_key_file(options_.key_file)) local_key_.emplace(*key);
  return local_key_.has_value();
}

void HostStore::give_keys() {
  if (!node_) return;
  auto keys = fleet_keys_;
  if (local_key_) keys.push_back(*local_key_);
  node_->set_keys(std::move(keys));
}

void HostStore::set_ring(const bus::StoreRing& ring) {
  {
    const MutexLock lock(mutex_);
    if (ring.version() < ring_.version()) return;
    ring_ = ring;
  }
  if (!node_) return;
  const std::set<std::string> enrolled(ring.hosts().begin(), ring.hosts().end());
  node_->revoke_if([&](const std::string& caller) {
    const std::string_view name = caller;
    return name.starts_with(kHostCaller) &&
           !enrolled.contains(std::string(name.substr(std::string_view(kHostCaller).size())));
  });
}

bus::StoreReport HostStore::take_report() {
  bus::StoreReport report;
  if (node_) {
    node_->sweep();
    report = node_->report();
  }
  const MutexLock lock(mutex_);
  std::erase_if(warm_, [&](const auto& entry) { return clock_.now() - entry.second > kWarmFor; });
  for (const auto& [version, since] : warm_) report.add_warm_versions(version);
  std::vector<std::pair<std::uint64_t, std::string>> hottest;
  for (const auto& [name, reads] : reads_) hottest.emplace_back(reads, name);
  reads_.clear();
  const std::size_t count = std::min(hottest.size(), kHotReported);
  std::ranges::partial_sort(hottest, hottest.begin() + static_cast<std::ptrdiff_t>(count),
                            std::greater<>());
  for (const auto& [reads, name] : std::span(hottest).first(count)) {
    bus::HotExtent& hot = *report.add_hot();
    hot.set_name(name);
    hot.set_reads(reads);
  }
  return report;
}

}  // namespace samepage::agent
