#pragma once

#include <algorithm>
#include <deque>
#include <functional>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "core/hypervisor.h"
#include "core/mutex.h"

namespace samepage::fakes {

enum class HypervisorCall : std::uint8_t {
  kFacts,
  kVms,
  kCheck,
  kMigrate,          ///< Fails before anything has happened.
  kMigrateSwitched,  ///< Fails after the guest was stopped for the switch-over; it goes on here.
  kProgress,
  kCancel,
  kResume,
  kDiscard,
  kObserve,
};

/// The VMs of a host in memory. Two of them joined by lead_to() migrate VMs to each other and emit
/// the events that libvirt emits, on the caller's thread. Each call first consumes the front of its
/// own fault script, if any.
/// Threads: every method may be called from any thread. Hooks and observers run without the lock.
class FakeHypervisor final : public Hypervisor {
 public:
  FakeHypervisor() {
    facts_.uri = "fake:///system";
    facts_.hypervisor_version = "QEMU 7.2.22";
    facts_.library_version = "libvirt 9.0.0";
    facts_.memory_bytes = std::uint64_t{16} << 30U;
    facts_.cpus = 8;
  }

  // The script.

  void add(VmInfo vm) {
    const MutexLock lock(mutex_);
    vms_.insert_or_assign(vm.id, std::move(vm));
  }

  void remove(const VmId& vm) {
    const MutexLock lock(mutex_);
    vms_.erase(vm);
  }

  void set_facts(HypervisorFacts facts) {
    const MutexLock lock(mutex_);
    facts_ = std::move(facts);
  }

  void set_progress(MigrationProgress progress) {
    const MutexLock lock(mutex_);
    progress_ = progress;
  }

  void fail_next(HypervisorCall call, Errc code, std::string message = "injected fault") {
    const MutexLock lock(mutex_);
    faults_[call].emplace_back(code, std::move(message));
  }

  /// What was allowed last; 0: nothing.
  std::chrono::milliseconds downtime_max() const {
    const MutexLock lock(mutex_);
    return downtime_max_;
  }

  bool cancelled() const {
    const MutexLock lock(mutex_);
    return cancelled_;
  }

  /// Where migrate() puts its VMs: a stand-in for both sockets. Borrowed.
  void lead_to(FakeHypervisor& target) {
    const MutexLock lock(mutex_);
    target_ = &target;
  }

  /// Runs inside migrate() while the guest still runs here: carry bytes, wait, or fail.
  void while_migrating(std::function<Result<void>(const MigrateRequest&)> hook) {
    const MutexLock lock(mutex_);
    while_migrating_ = std::move(hook);
  }

  /// Runs inside migrate() when the VM has arrived, before the source's copy is gone.
  void when_arrived(std::function<void(const MigrateRequest&)> hook) {
    const MutexLock lock(mutex_);
    when_arrived_ = std::move(hook);
  }

  void emit(const VmId& vm, VmEventKind kind) {
    std::function<void(const VmEvent&)> observer;
    {
      const MutexLock lock(mutex_);
      observer = observer_;
    }
    if (observer) observer(VmEvent{vm, kind});
  }

  std::size_t calls(HypervisorCall call) const {
    const MutexLock lock(mutex_);
    const auto found = calls_.find(call);
    return found == calls_.end() ? 0 : found->second;
  }

  // The Hypervisor.

  Result<HypervisorFacts> facts() override {
    TRY(begin(HypervisorCall::kFacts));
    const MutexLock lock(mutex_);
    return facts_;
  }

  Result<std::vector<VmInfo>> vms() override {
    TRY(begin(HypervisorCall::kVms));
    const MutexLock lock(mutex_);
    std::vector<VmInfo> vms;
    for (const auto& [id, vm] : vms_) vms.push_back(vm);
    std::sort(vms.begin(), vms.end(),
              [](const VmInfo& a, const VmInfo& b) { return a.name < b.name; });
    return vms;
  }

  Result<void> migrate(const MigrateRequest& request) override {
    TRY(begin(HypervisorCall::kMigrate));
    const VmInfo before = TRY(find(request.vm));
    const Migration migration = start();
    if (migration.target == nullptr) return fail(Errc::kUnavailable, "no target is set");
    if (migration.hook) TRY(migration.hook(request));
    if (cancelled()) return fail(Errc::kIo, "the migration was cancelled");

    const bool was_running = before.state == VmState::kRunning;
    if (was_running) switch_state(request.vm, VmState::kPaused, VmEventKind::kPausedForMigration);
    const auto switched = begin(HypervisorCall::kMigrateSwitched);
    if (!switched) {
      if (was_running) switch_state(request.vm, VmState::kRunning, VmEventKind::kResumed);
      return tl::unexpected(switched.error());
    }

    VmInfo arrived = before;
    arrived.state = VmState::kPaused;
    migration.target->add(arrived);
    migration.target->emit(request.vm, VmEventKind::kStarted);
    if (migration.arrived) migration.arrived(request);
    remove(request.vm);
    emit(request.vm, VmEventKind::kStopped);
    return {};
  }

  Result<void> check_migratable(const VmId& vm) override {
    TRY(begin(HypervisorCall::kCheck));
    TRY(find(vm));
    return {};
  }

  Result<MigrationProgress> migration_progress(const VmId& /*vm*/) override {
    TRY(begin(HypervisorCall::kProgress));
    const MutexLock lock(mutex_);
    return progress_;
  }

  Result<void> set_downtime_max(const VmId& vm, std::chrono::milliseconds max) override {
    TRY(find(vm));
    const MutexLock lock(mutex_);
    downtime_max_ = max;
    return {};
  }

  Result<void> cancel_migration(const VmId& vm) override {
    TRY(begin(HypervisorCall::kCancel));
    TRY(find(vm));
    const MutexLock lock(mutex_);
    cancelled_ = true;
    return {};
  }

  Result<void> start_postcopy(const VmId& /*vm*/) override {
    return fail(Errc::kInvalid, "this hypervisor has no post-copy");
  }

  Result<void> resume(const VmId& vm) override {
    TRY(begin(HypervisorCall::kResume));
    TRY(find(vm));
    switch_state(vm, VmState::kRunning, VmEventKind::kResumed);
    return {};
  }

  /// Paused VMs here are as if for an I/O error.
  Result<bool> resume_after_io_error(const VmId& vm) override {
    const VmInfo found = TRY(find(vm));
    if (found.state != VmState::kPaused) return false;
    TRY(resume(vm));
    return true;
  }

  Result<void> freeze_filesystems(const VmId& vm) override {
    TRY(find(vm));
    return fail(Errc::kUnavailable, "the guest has no agent");
  }
  Result<void> thaw_filesystems(const VmId& vm) override {
    TRY(find(vm));
    return {};
  }

  Result<void> discard_paused(const VmId& vm) override {
    TRY(begin(HypervisorCall::kDiscard));
    const VmInfo found = TRY(find(vm));
    if (found.state != VmState::kPaused) return fail(Errc::kInvalid, "the VM is not paused");
    remove(vm);
    emit(vm, VmEventKind::kStopped);
    return {};
  }

  Result<void> observe(std::function<void(const VmEvent&)> on_event) override {
    TRY(begin(HypervisorCall::kObserve));
    const MutexLock lock(mutex_);
    observer_ = std::move(on_event);
    return {};
  }

 private:
  struct Migration {
    FakeHypervisor* target = nullptr;
    std::function<Result<void>(const MigrateRequest&)> hook;
    std::function<void(const MigrateRequest&)> arrived;
  };

  Result<void> begin(HypervisorCall call) {
    const MutexLock lock(mutex_);
    ++calls_[call];
    auto& faults = faults_[call];
    if (faults.empty()) return {};
    Error error = std::move(faults.front());
    faults.pop_front();
    return tl::unexpected(std::move(error));
  }

  Result<VmInfo> find(const VmId& vm) const {
    const MutexLock lock(mutex_);
    const auto found = vms_.find(vm);
    if (found == vms_.end()) return fail(Errc::kNotFound, "no VM has the UUID " + vm.uuid);
    return found->second;
  }

  Migration start() {
    const MutexLock lock(mutex_);
    cancelled_ = false;
    return {target_, while_migrating_, when_arrived_};
  }

  void switch_state(const VmId& vm, VmState state, VmEventKind kind) {
    {
      const MutexLock lock(mutex_);
      const auto found = vms_.find(vm);
      if (found != vms_.end()) found->second.state = state;
    }
    emit(vm, kind);
  }

  mutable Mutex mutex_;
  HypervisorFacts facts_ GUARDED_BY(mutex_);
  std::map<VmId, VmInfo> vms_ GUARDED_BY(mutex_);
  std::map<HypervisorCall, std::deque<Error>> faults_ GUARDED_BY(mutex_);
  std::map<HypervisorCall, std::size_t> calls_ GUARDED_BY(mutex_);
  FakeHypervisor* target_ GUARDED_BY(mutex_) = nullptr;
  std::function<Result<void>(const MigrateRequest&)> while_migrating_ GUARDED_BY(mutex_);
  std::function<void(const MigrateRequest&)> when_arrived_ GUARDED_BY(mutex_);
  std::function<void(const VmEvent&)> observer_ GUARDED_BY(mutex_);
  MigrationProgress progress_ GUARDED_BY(mutex_);
  std::chrono::milliseconds downtime_max_ GUARDED_BY(mutex_){0};
  bool cancelled_ GUARDED_BY(mutex_) = false;
};

}  // namespace samepage::fakes
