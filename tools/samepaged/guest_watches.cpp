#include "tools/samepaged/guest_watches.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <thread>
#include <utility>
#include <vector>

#include "core/log.h"
#include "fingerprinter/frame_hashes.h"
#include "fingerprinter/ksm_accounting.h"

namespace samepage::agent {

using fingerprinter::GuestWatch;
using fingerprinter::ScanOptions;

void GuestWatches::rescan(std::span<const VmInfo> vms, const Domains& domains) {
  forget_others(vms, domains);
  fingerprinter::FrameHashes frames;
  const auto at_once = std::max<std::size_t>(
      1, std::min(vms.size(), static_cast<std::size_t>(std::ceil(options_.cpu_share))));
  ScanOptions options;
  options.cpu_share = std::min(1.0, options_.cpu_share / static_cast<double>(at_once));
  options.frames = &frames;

  std::atomic<std::size_t> next = 0;
  const auto work = [&] {
    for (std::size_t i = next++; i < vms.size(); i = next++) {
      const auto domain = domains.find(vms[i].sharing_domain);
      if (domain != domains.end()) look_at(vms[i], domain->second.seed, options);
    }
  };
  std::vector<std::jthread> others;
  for (std::size_t i = 1; i < at_once; ++i) others.emplace_back(work);
  work();
}

void GuestWatches::forget_others(std::span<const VmInfo> vms, const Domains& domains) {
  std::set<VmId> kept;
  for (const VmInfo& vm : vms) {
    if (domains.contains(vm.sharing_domain)) kept.insert(vm.id);
  }
  std::vector<std::shared_ptr<Entry>> gone;  // Destroyed without the lock: that may take a while.
  const MutexLock lock(mutex_);
  std::erase_if(known_, [&](const auto& one) { return !kept.contains(one.first); });
  std::erase_if(entries_, [&](auto& one) {
    if (kept.contains(one.first)) return false;
    gone.push_back(std::move(one.second));
    return true;
  });
}

void GuestWatches::look_at(const VmInfo& vm, HashSeed seed, ScanOptions options) {
  const std::shared_ptr<Entry> entry = entry_of(vm.id);
  const MutexLock looking(entry->mutex);
  const auto token = begin(vm.id, *entry);
  if (!token) return;
  options.stop = *token;
  auto fresh = scan(*entry, vm, seed, options);
  if (fresh) {
    const MutexLock lock(mutex_);
    known_.insert_or_assign(vm.id, *std::move(fresh));
    return;
  }
  entry->watch.reset();
  if (token->stop_requested()) return;
  log_warning("guest not scanned, what is known of it grows older vm={} why=\"{}\"", vm.name,
              fresh.error().message());
}

Result<GuestWatches::Known> GuestWatches::scan(Entry& entry, const VmInfo& vm, HashSeed seed,
                                               const ScanOptions& options) {
  const auto began = clock_.now();
  if (!entry.watch || !entry.watch->watches(vm, seed)) {
    entry.watch.reset();  // First: a new watch cannot note writes that another one still notes.
    entry.watch = TRY(GuestWatch::open(vm, seed));
    entry.is_mergeable = TRY(fingerprinter::is_mergeable(vm));
    log_info("guest watched vm={} tracker={} mergeable={}", vm.name, entry.watch->tracker(),
             entry.is_mergeable);
  }
  return Known{.fingerprint = TRY(entry.watch->rescan(options)),
               .at = began,
               .tracker = std::string(entry.watch->tracker()),
               .is_mergeable = entry.is_mergeable};
}

std::shared_ptr<GuestWatches::Entry> GuestWatches::entry_of(const VmId& vm) {
  const MutexLock lock(mutex_);
  std::shared_ptr<Entry>& entry = entries_[vm];
  if (!entry) entry = std::make_shared<Entry>();
  return entry;
}

std::optional<std::stop_token> GuestWatches::begin(const VmId& vm, const Entry& entry) const {
  const MutexLock lock(mutex_);
  if (stopped_ || held_.contains(vm)) return std::nullopt;
  return entry.stop.get_token();
}

std::optional<GuestWatches::Known> GuestWatches::known(const VmId& vm) const {
  const MutexLock lock(mutex_);
  const auto found = known_.find(vm);
  if (found == known_.end()) return std::nullopt;
  return found->second;
}

std::shared_ptr<void> GuestWatches::hold(const VmId& vm) {
  const std::shared_ptr<Entry> entry = entry_of(vm);
  {
    const MutexLock lock(mutex_);
    held_.insert(vm);
    entry->stop.request_stop();
  }
  {
    const MutexLock looking(entry->mutex);
    entry->watch.reset();
  }
  return {this, [vm](GuestWatches* watches) { watches->let_go(vm); }};
}

void GuestWatches::let_go(const VmId& vm) {
  const MutexLock lock(mutex_);
  held_.erase(held_.find(vm));
  const auto entry = entries_.find(vm);
  if (entry != entries_.end() && !held_.contains(vm)) entry->second->stop = std::stop_source();
}

void GuestWatches::stop() {
  const MutexLock lock(mutex_);
  stopped_ = true;
  for (auto& [vm, entry] : entries_) entry->stop.request_stop();
}

}  // namespace samepage::agent
