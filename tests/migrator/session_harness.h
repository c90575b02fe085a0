#pragma once

#include <filesystem>
#include <functional>
#include <future>
#include <memory>
#include <string>

#include <gtest/gtest.h>
#include <unistd.h>

#include "migrator/source_migration.h"
#include "migrator/target_migration.h"
#include "tests/migrator/fake_libvirt_host.h"
#include "tests/migrator/plain_relay.h"
#include "tests/migrator/session_wire.h"

namespace samepage::migrator {

inline const VmId kVm{"11111111-2222-3333-4444-555555555555"};

/// Two hosts with their agents, the network between them, and the placer's part after a migration
/// whose outcome nobody knew.
class SessionHarness {
 public:
  struct Options {
    std::string session = "0123456789abcdef";
    VmState vm_state = VmState::kRunning;
    VmId vm = kVm;
    bool greets = false;
    bool converges = false;
    std::uint64_t source_relay_fails_after = UINT64_MAX;
    std::uint64_t target_relay_fails_after = UINT64_MAX;
    std::function<void(SourceOptions&)> source = {};
    std::function<void(TargetOptions&)> target = {};
    MakeRelay source_relay = {};
    MakeRelay target_relay = {};
    std::function<LeavingDiskList()> disks = {};
  };

  explicit SessionHarness(Options options)
      : options_(std::move(options)),
        folder_(make_folder()),
        source_host({.name = "source",
                     .folder = folder_ + "/s",
                     .greets = options_.greets,
                     .converges = options_.converges},
                    ledger),
        target_host({.name = "target", .folder = folder_ + "/t", .greets = options_.greets},
                    ledger) {
    VmInfo vm;
    vm.id = options_.vm;
    vm.name = "guest";
    vm.state = options_.vm_state;
    source_host.add(vm);
    make_target();
    wire = std::make_unique<SessionWire>(target->port());
    make_source();
    static_cast<void>(
        source_host.observe([this](const VmEvent& event) { source->on_vm_event(event); }));
  }

  ~SessionHarness() { std::filesystem::remove_all(folder_); }
  SessionHarness(const SessionHarness&) = delete;
  SessionHarness& operator=(const SessionHarness&) = delete;

  void run() {
    auto target_run = std::async(std::launch::async, [this] { return target->run(); });
    source_outcome = source->run([this](const SourceProgress& progress) {
      if (on_progress) on_progress(progress);
    });
    target_outcome = target_run.get();
    target_host.stop();
  }

  bool is_on(FakeLibvirtHost& host) { return state_on(host) != VmState::kOther; }

  VmState state_on(FakeLibvirtHost& host) {
    const auto vms = host.vms().value();
    return vms.empty() ? VmState::kOther : vms.front().state;
  }

  /// What the placer does: it asks both hosts, resumes on the target only when the source has no
  /// such VM, and has a paused copy discarded where the other host keeps the VM.
  void settle() {
    if (!is_on(source_host)) {
      if (source_outcome.runs_on == Side::kUnknown) {
        static_cast<void>(target_host.resume(options_.vm));
      }
      return;
    }
    static_cast<void>(target_host.discard_paused(options_.vm));
    if (source_outcome.runs_on == Side::kUnknown) {
      static_cast<void>(source_host.resume(options_.vm));
    }
  }

  /// The promise of every test here, after settling.
  void expect_runs_once() {
    EXPECT_FALSE(ledger.ever_twice()) << "the guest ran on two hosts";
    settle();
    EXPECT_FALSE(ledger.ever_twice()) << "the guest ran on two hosts after settling";
    EXPECT_EQ(ledger.running_on(options_.vm).size(), 1U) << "the guest runs nowhere";
    if (source_outcome.runs_on == Side::kSource) {
      EXPECT_EQ(state_on(source_host), VmState::kRunning);
    }
    if (source_outcome.runs_on == Side::kTarget) {
      EXPECT_EQ(state_on(target_host), VmState::kRunning);
    }
    EXPECT_FALSE(is_on(source_host) && is_on(target_host)) << "a second copy was left";
  }

  bool leaves_no_sockets() {
    for (const auto& entry : std::filesystem::recursive_directory_iterator(folder_)) {
      if (entry.is_socket() && entry.path().filename() != "libvirt-sock") return false;
    }
    return true;
  }

 private:
  static std::string make_folder() {
    std::string folder = std::filesystem::temp_directory_path() / "session_test.XXXXXX";
    EXPECT_NE(::mkdtemp(folder.data()), nullptr);
    std::filesystem::create_directory(folder + "/s");
    std::filesystem::create_directory(folder + "/t");
    return folder;
  }

  void make_target() {
    TargetOptions target_options;
    target_options.session = options_.session;
    target_options.secret.bytes.fill(std::byte{77});
    target_options.vm = options_.vm;
    target_options.listen_address = "127.0.0.1";
    target_options.socket_dir = folder_ + "/t";
    target_options.libvirt_socket = target_host.libvirt_socket();
    if (options_.target) options_.target(target_options);
    auto relay = options_.target_relay ? options_.target_relay
                                       : PlainRelay::maker(PlainRelay::Role::kTarget,
                                                           options_.target_relay_fails_after);
    target = TargetMigration::create(target_options, target_host, relay).value();
  }

  void make_source() {
    SourceOptions source_options;
    source_options.session = options_.session;
    source_options.secret.bytes.fill(std::byte{77});
    source_options.vm = options_.vm;
    source_options.target_address = "127.0.0.1";
    source_options.target_port = wire->port();
    source_options.socket_dir = folder_ + "/s";
    source_options.answer_max = std::chrono::milliseconds(2'000);
    source_options.report_every = std::chrono::milliseconds(1);
    if (options_.source) options_.source(source_options);
    auto relay = options_.source_relay ? options_.source_relay
                                       : PlainRelay::maker(PlainRelay::Role::kSource,
                                                           options_.source_relay_fails_after);
    auto disks = options_.disks ? options_.disks() : LeavingDiskList();
    source = SourceMigration::create(source_options, source_host, relay, std::move(disks)).value();
  }

  const Options options_;
  const std::string folder_;

 public:
  RunningLedger ledger;
  FakeLibvirtHost source_host;
  FakeLibvirtHost target_host;
  std::unique_ptr<TargetMigration> target;
  std::unique_ptr<SessionWire> wire;
  std::unique_ptr<SourceMigration> source;
  std::function<void(const SourceProgress&)> on_progress;
  SourceOutcome source_outcome;
  TargetOutcome target_outcome;
};

}  // namespace samepage::migrator
