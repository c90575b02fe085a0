#pragma once

#include <chrono>
#include <filesystem>
#include <fstream>
#include <memory>
#include <string>
#include <thread>

#include <gtest/gtest.h>
#include <sys/eventfd.h>

#include "core/curve_keys.h"
#include "core/fd.h"
#include "tests/core/temporary_folder.h"
#include "tests/fakes/fake_hypervisor.h"
#include "tests/fakes/fake_vm_control.h"
#include "tools/samepage-placer/placer.h"
#include "tools/samepaged/agent.h"

namespace samepage {

using control::Placer;

inline constexpr auto kPatience = std::chrono::seconds(20);
inline constexpr const char* kUuid = "11111111-2222-4333-8444-555555555555";

inline VmInfo vm(const std::string& name) {
  VmInfo info;
  info.id = {kUuid};
  info.name = name;
  info.state = VmState::kRunning;
  info.memory_bytes = std::uint64_t{256} << 20U;
  info.vcpus = 1;
  return info;
}

/// A host with its agent, which serves for as long as this lives.
class HostUnderTest {
 public:
  HostUnderTest(const std::string& folder, const std::string& bus, const std::string& placer_key)
      : stop_(::eventfd(0, EFD_CLOEXEC)) {
    options_.placer = bus;
    options_.key_file = folder + "/agent.key";
    options_.placer_key_file = placer_key;
    options_.data_address = "127.0.0.1";
    options_.run_dir = folder;
    options_.store_dir = folder + "/store";
    options_.disks_dir = folder + "/disks";
    options_.mirrors_dir = folder + "/mirrors";
    options_.qemu_conf = folder + "/qemu.conf";
    std::ofstream(options_.qemu_conf) << "memory_backing_dir = \"" << folder << "/ram\"\n";
    std::filesystem::create_directories(folder + "/ram");
    keys_ = load_or_make_curve_keys(options_.key_file).value();
  }
  HostUnderTest(const HostUnderTest&) = delete;
  HostUnderTest& operator=(const HostUnderTest&) = delete;
  ~HostUnderTest() { leave(); }

  const std::string& public_key() const { return keys_.public_key; }
  fakes::FakeHypervisor& hypervisor() { return hypervisor_; }
  fakes::FakeVmControl& vms() { return vms_; }
  agent::Options& options() { return options_; }

  void join() {
    auto made = agent::Agent::create(options_, {hypervisor_, vms_}, clock_);
    ASSERT_TRUE(made) << made.error().message();
    agent_ = *std::move(made);
    serving_ = std::jthread([this] { EXPECT_TRUE(agent_->serve(stop_.get())); });
  }

  void leave() {
    if (!agent_) return;
    EXPECT_EQ(::eventfd_write(stop_.get(), 1), 0);
    serving_.join();
    agent_.reset();
  }

 private:
  SystemClock clock_;
  fakes::FakeHypervisor hypervisor_;
  fakes::FakeVmControl vms_{"/nonexistent"};
  agent::Options options_;
  CurveKeyPair keys_;
  Fd stop_;
  std::unique_ptr<agent::Agent> agent_;
  std::jthread serving_;
};

/// A placer's service, and agents that join it over the real bus.
class ServicesTest : public ::testing::Test {
 protected:
  void SetUp() override {
    options_.bind = "ipc://" + folder_.file("bus");
    options_.state_dir = folder_.file("placer");
    options_.report_interval_s = 3600;
    start_placer();
  }

  void start_placer() {
    auto made = Placer::create(options_, clock_);
    ASSERT_TRUE(made) << made.error().message();
    placer_ = *std::move(made);
  }

  std::unique_ptr<HostUnderTest> host(const std::string& name) {
    const std::string folder = folder_.file(name);
    std::filesystem::create_directories(folder);
    return std::make_unique<HostUnderTest>(folder, options_.bind,
                                           options_.state_dir + "/placer.pub");
  }

  std::unique_ptr<HostUnderTest> enrolled_host(const std::string& name) {
    auto made = host(name);
    EXPECT_TRUE(placer_->enroll(name, made->public_key()));
    return made;
  }

  /// The host as the placer knows it, once it is in this state and has reported if it is up.
  placer::Host seen(const std::string& name, placer::HostState state) {
    const auto give_up = std::chrono::steady_clock::now() + kPatience;
    while (std::chrono::steady_clock::now() < give_up) {
      const placer::Fleet fleet = placer_->fleet();
      const placer::Host* found = fleet.find_host(name);
      const bool reported = state != placer::HostState::kUp || (found && found->report_age);
      if (found && found->state == state && reported) return *found;
      std::this_thread::yield();
    }
    ADD_FAILURE() << name << " did not become " << to_string(state);
    return {};
  }

  Placer::ScanResult ask_all() {
    return placer_->ask_hosts(Placer::Freshness::kStates,
                              std::chrono::steady_clock::now() + kPatience);
  }

  TemporaryFolder folder_;
  SystemClock clock_;
  control::Options options_;
  std::unique_ptr<Placer> placer_;
};

}  // namespace samepage
