#pragma once

#include <condition_variable>
#include <functional>
#include <list>
#include <map>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "core/hypervisor.h"
#include "core/mutex.h"
#include "migrator/socket_listener.h"
#include "migrator/socket_stream.h"
#include "tests/migrator/rpc_message.h"
#include "tests/migrator/running_ledger.h"

namespace samepage::migrator {

/// Moments of a migration at which a test may step in.
enum class Moment : std::uint8_t {
  kPrepared,        ///< Source: the target's QEMU listens.
  kHalfStreamed,    ///< Source: half of the stream was written.
  kGuestStopped,    ///< Source: the guest is stopped, the rest of the stream is to come.
  kPerformed,       ///< Source: QEMU has sent everything, and the target's QEMU has said so.
  kFinishExecuted,  ///< Target: the guest has arrived, and the answer is not sent yet.
  kFinishAnswered,  ///< Source: the successful answer was read, the copy here still exists.
  kFinishFailed,    ///< Source: no answer came; the guest goes on here next.
  kProgressAsked,   ///< Source: somebody asks how far it is, again and again.
};

/// libvirtd and QEMU of one host, as far as a migration sees them: the source's side drives the
/// protocol over the sockets that it is given, in libvirt's order and framing, and the target's
/// side answers on its own libvirt socket. What a broken connection does, it does as libvirt.
/// Threads: every method may be called from any thread; moments come on the host's threads.
class FakeLibvirtHost final : public Hypervisor {
 public:
  struct Options {
    std::string name;
    std::string folder;  ///< Of its sockets.
    std::size_t stream_bytes = 2'000'000;
    bool greets = false;     ///< Says something first that makes the protocol another one.
    bool converges = false;  ///< Ends a post-copy migration before it is told to switch.
  };

  FakeLibvirtHost(Options options, RunningLedger& ledger);
  ~FakeLibvirtHost() override;
  FakeLibvirtHost(const FakeLibvirtHost&) = delete;
  FakeLibvirtHost& operator=(const FakeLibvirtHost&) = delete;

  void add(const VmInfo& vm);
  std::string libvirt_socket() const { return options_.folder + "/libvirt-sock"; }

  /// Set before the migration.
  void at(Moment moment, std::function<void()> hook) { hooks_[moment] = std::move(hook); }

  /// Closes every connection and waits for the host's threads; no moment comes any more.
  void stop();

  /// The QEMU that waits for a stream dies; libvirt's control connection stays open.
  void kill_incoming_qemu();

  /// From now on cancel_migration() returns, with an error, when the migration has ended.
  void hang_cancels();

  /// Fails the next calls of resume().
  void fail_resumes(int times, Errc code);

  Result<HypervisorFacts> facts() override { return HypervisorFacts{}; }
  Result<std::vector<VmInfo>> vms() override;
  Result<void> migrate(const MigrateRequest& request) override;
  Result<void> check_migratable(const VmId& /*vm*/) override { return {}; }
  Result<MigrationProgress> migration_progress(const VmId& vm) override;
  Result<void> set_downtime_max(const VmId& /*vm*/, std::chrono::milliseconds /*max*/) override {
    return {};
  }
  Result<void> cancel_migration(const VmId& vm) override;
  Result<void> start_postcopy(const VmId& vm) override;
  Result<void> resume(const VmId& vm) override;
  Result<bool> resume_after_io_error(const VmId&) override { return false; }
  Result<void> freeze_filesystems(const VmId&) override {
    return fail(Errc::kUnavailable, "the guest has no agent");
  }
  Result<void> thaw_filesystems(const VmId&) override { return {}; }
  Result<void> discard_paused(const VmId& vm) override;
  Result<void> observe(std::function<void(const VmEvent&)> on_event) override;

 private:
  struct Incoming;

  void reach(Moment moment);
  void set_state(const VmId& vm, VmState state, VmEventKind event);
  void forget(const VmId& vm);
  Result<void> open_streams(const MigrateRequest& request);
  Result<void> send_stream(const MigrateRequest& request, bool& stopped);
  Result<void> send_rest(std::span<const std::byte> rest);
  bool wait_for_switch();
  Result<void> migrate_postcopy(const MigrateRequest& request, SocketStream& control);
  Result<void> call(SocketStream& control, std::uint32_t procedure, const std::string& text,
                    std::uint32_t last_word);
  void serve(Fd socket);
  bool answer(SocketStream& client, const RpcHeader& call, const std::string& text,
              std::shared_ptr<Incoming>& incoming, std::uint32_t last_word);

  const Options options_;
  RunningLedger& ledger_;
  std::map<Moment, std::function<void()>> hooks_;
  Mutex mutex_;
  std::map<VmId, VmInfo> vms_ GUARDED_BY(mutex_);
  std::function<void(const VmEvent&)> observer_ GUARDED_BY(mutex_);
  std::shared_ptr<SocketStream> outgoing_ GUARDED_BY(mutex_);
  std::condition_variable_any ended_;
  bool cancels_hang_ GUARDED_BY(mutex_) = false;
  bool cancelled_ GUARDED_BY(mutex_) = false;
  bool switches_ GUARDED_BY(mutex_) = false;
  std::weak_ptr<Incoming> incoming_ GUARDED_BY(mutex_);                 // Of the last Prepare.
  std::vector<std::shared_ptr<SocketStream>> more_ GUARDED_BY(mutex_);  // Of multifd.
  int failing_resumes_ GUARDED_BY(mutex_) = 0;
  Errc resume_error_ GUARDED_BY(mutex_) = Errc::kUnavailable;
  std::list<std::shared_ptr<SocketStream>> clients_ GUARDED_BY(mutex_);
  std::unique_ptr<SocketListener> listener_;
  std::list<std::jthread> serving_;  // The acceptor's own, then the destructor's.
  std::jthread acceptor_;
};

}  // namespace samepage::migrator
