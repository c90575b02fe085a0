// The promise under test: a fork becomes somebody of its own, once, whatever of it fails; a leader
// and a machine that is no guest of ours stay as they are.

#include "tools/first-run/first_run.h"

#include <cstdint>
#include <filesystem>
#include <functional>
#include <set>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/tools/temp_dir.h"
#include "tools/first-run/linux_guest.h"

namespace samepage::first_run {
namespace {

namespace fs = std::filesystem;
using samepage::testing::TempDir;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

constexpr const char* kUuid = "0f0e0d0c-0b0a-4908-8706-050403020100";
constexpr const char* kIdentity = "sys/firmware/qemu_fw_cfg/by_name/opt/org.samepage/identity/raw";

class FakeGuest final : public GuestSystem {
 public:
  Result<void> reseed(std::string_view secret) override {
    return done("reseed " + std::string(secret));
  }
  Result<void> set_clock(std::chrono::seconds since_epoch) override {
    return done("clock " + std::to_string(since_epoch.count()));
  }
  Result<void> set_host_name(const std::string& name) override { return done("hostname " + name); }
  Result<void> run(const std::vector<std::string>& command) override {
    std::string words = fs::path(command.front()).filename();
    for (std::size_t i = 1; i < command.size(); ++i) words += " " + command[i];
    if (on_run) on_run(words);
    return done(words);
  }
  Result<void> wait_for_card() override {
    if (cards == 0) return fail(Errc::kIo, "no card comes any more");
    --cards;
    if (on_card) on_card();
    return done("card");
  }
  void pause(std::chrono::seconds time) override {
    seen.push_back("pause " + std::to_string(time.count()));
  }

  std::vector<std::string> seen;
  std::set<std::string> failing;
  std::function<void(const std::string&)> on_run;
  std::function<void()> on_card;
  int cards = 0;

 private:
  Result<void> done(const std::string& what) {
    seen.push_back(what);
    if (failing.contains(what)) return fail(Errc::kIo, "as the test wants it");
    return {};
  }
};

class FirstRunTest : public ::testing::Test {
 protected:
  FirstRunTest() {
    for (const char* folder : {"etc/samepage/first-run.d", "etc/ssh", "run", "usr/bin",
                               "var/lib/dbus", "var/lib/systemd"}) {
      fs::create_directories(dir_.file(folder));
    }
    dir_.write("etc/hostname", "leader\n");
    dir_.write("etc/machine-id", "leader\n");
    dir_.write("var/lib/dbus/machine-id", "leader\n");
    dir_.write("var/lib/systemd/random-seed", "leader\n");
  }

  void say(const std::string& identity) {
    fs::create_directories(fs::path(dir_.file(kIdentity)).parent_path());
    dir_.write(kIdentity, identity);
  }
  void say_vm() { say(std::string(kUuid) + " web-7 vm " + std::string(60, '=')); }
  void program(const std::string& path) {
    fs::permissions(dir_.write(path, "#!/bin/sh\n"), fs::perms::owner_all);
  }
  Result<Outcome> run() { return FirstRun(dir_.file("."), guest_).run(); }
  Result<Outcome> stay() {
    return FirstRun(dir_.file("."), guest_).stay([this] { guest_.seen.push_back("looked"); });
  }

  const TempDir dir_;
  FakeGuest guest_;
};

TEST_F(FirstRunTest, AForkGetsAnIdentityOnce) {
  say_vm();
  fs::create_directories(dir_.file("sys/class/rtc/rtc0"));
  dir_.write("sys/class/rtc/rtc0/since_epoch", "1700000000\n");
  ASSERT_TRUE(run());
  EXPECT_THAT(guest_.seen,
              ElementsAre("reseed " + std::string(kUuid), "clock 1700000000", "hostname web-7",
                          "pause 60", "systemctl --no-block try-restart systemd-journald"));
  EXPECT_EQ(dir_.read("etc/hostname"), "web-7\n");
  EXPECT_EQ(dir_.read("etc/machine-id"), "0f0e0d0c0b0a49088706050403020100\n");
  EXPECT_FALSE(fs::exists(dir_.file("var/lib/dbus/machine-id")));
  EXPECT_FALSE(fs::exists(dir_.file("var/lib/systemd/random-seed")));

  guest_.seen.clear();
  ASSERT_TRUE(run());
  EXPECT_THAT(guest_.seen, IsEmpty());
}

TEST_F(FirstRunTest, HooksRunInOrderWhenOthersCanTellTheVmApart) {
  say_vm();
  program("etc/samepage/first-run.d/50-b");
  program("etc/samepage/first-run.d/10-a");
  dir_.write("etc/samepage/first-run.d/README", "no program");
  program("usr/bin/ssh-keygen");
  dir_.write("etc/ssh/sshd_config", "");
  dir_.write("etc/ssh/ssh_host_rsa_key", "leader");
  fs::create_directories(dir_.file("run/systemd/network"));
  dir_.write("run/systemd/network/10-netplan.network", "");
  ASSERT_TRUE(run());
  guest_.seen.erase(guest_.seen.begin(), guest_.seen.begin() + 2);
  EXPECT_THAT(guest_.seen,
              ElementsAre("systemctl --no-block try-restart systemd-networkd", "ssh-keygen -A",
                          "systemctl --no-block try-restart ssh",
                          "10-a web-7 " + std::string(kUuid), "50-b web-7 " + std::string(kUuid),
                          "pause 60", "systemctl --no-block try-restart systemd-journald"));
  EXPECT_FALSE(fs::exists(dir_.file("etc/ssh/ssh_host_rsa_key")));
  EXPECT_TRUE(fs::exists(dir_.file("etc/ssh/sshd_config")));
}

TEST_F(FirstRunTest, WhatFailsIsTriedAgainAndKeepsNothingElseFromBeingDone) {
  say_vm();
  program("etc/samepage/first-run.d/10-a");
  guest_.failing = {"reseed " + std::string(kUuid)};
  EXPECT_EQ(run().error().code(), Errc::kIo);
  EXPECT_EQ(dir_.read("etc/hostname"), "web-7\n");
  EXPECT_THAT(guest_.seen, ::testing::Contains("10-a web-7 " + std::string(kUuid)));

  guest_.failing = {"10-a web-7 " + std::string(kUuid),
                    "systemctl --no-block try-restart systemd-journald"};
  EXPECT_TRUE(run()) << "hooks and services are their owners'";
  guest_.seen.clear();
  EXPECT_TRUE(run());
  EXPECT_THAT(guest_.seen, IsEmpty());
}

TEST_F(FirstRunTest, ALeaderStaysAsItIs) {
  say(std::string(kUuid) + " leader-web leader ====");
  EXPECT_EQ(run().value(), Outcome::kLeader);
  EXPECT_THAT(guest_.seen, IsEmpty());
  EXPECT_EQ(dir_.read("etc/hostname"), "leader\n");
}

TEST_F(FirstRunTest, OneThatStaysInTheLeaderGoesOnInTheFork) {
  say(std::string(kUuid) + " leader-web leader ====");
  guest_.cards = 2;
  guest_.on_card = [this] {
    if (guest_.cards == 0) say_vm();
  };
  EXPECT_EQ(stay().value(), Outcome::kBecame);
  EXPECT_THAT(guest_.seen, ElementsAre("looked", "card", "card", "reseed " + std::string(kUuid),
                                       "hostname web-7", "pause 60",
                                       "systemctl --no-block try-restart systemd-journald"));
}

TEST_F(FirstRunTest, OneThatStaysEndsWhereThereIsNothingToWaitFor) {
  say_vm();
  EXPECT_EQ(stay().value(), Outcome::kBecame);
  EXPECT_THAT(guest_.seen,
              ElementsAre("reseed " + std::string(kUuid), "hostname web-7", "looked", "pause 60",
                          "systemctl --no-block try-restart systemd-journald"))
      << "the boot does not wait for the journal";
  guest_.seen.clear();
  EXPECT_EQ(stay().value(), Outcome::kNothing) << "all was done";
  EXPECT_THAT(guest_.seen, ElementsAre("looked"));
  say(std::string(kUuid) + " leader-web leader ====");
  EXPECT_EQ(stay().error().code(), Errc::kIo) << "udev is gone";
}

TEST_F(FirstRunTest, AMachineThatIsNoGuestOfOursStaysAsItIs) {
  guest_.failing = {"modprobe -q qemu_fw_cfg"};
  ASSERT_TRUE(run());
  EXPECT_THAT(guest_.seen, ElementsAre("modprobe -q qemu_fw_cfg"));
  EXPECT_EQ(dir_.read("etc/hostname"), "leader\n");
}

TEST_F(FirstRunTest, TheIdentityMayNeedItsModule) {
  guest_.on_run = [this](const std::string&) {
    guest_.on_run = nullptr;
    say_vm();
  };
  ASSERT_TRUE(run());
  EXPECT_EQ(dir_.read("etc/hostname"), "web-7\n");
}

TEST_F(FirstRunTest, NonsenseIsRefused) {
  for (const std::string text : {"", "=====", "web-7 vm", "not-a-uuid web-7 vm"}) {
    EXPECT_EQ(parse_identity(text).error().code(), Errc::kCorrupt) << text;
  }
  say("not-a-uuid web-7 vm");
  EXPECT_THAT(run().error().message(), HasSubstr("makes no sense"));
  EXPECT_EQ(dir_.read("etc/hostname"), "leader\n");
}

std::string udev_message(const std::string& properties, std::uint32_t properties_at = 40) {
  std::string message("libudev\0", 8);
  for (const std::uint32_t word : {0xfeedcafeU, 40U, properties_at, 0U, 0U, 0U, 0U, 0x61616161U}) {
    message.append(reinterpret_cast<const char*>(&word), sizeof word);
  }
  return message + properties;
}

TEST(UdevMessage, TellsOfACardThatWasAdded) {
  using namespace std::string_literals;
  const std::string added = "ACTION=add\0DEVPATH=/devices/x/net/eth0\0SUBSYSTEM=net\0"s;
  EXPECT_TRUE(tells_of_card(udev_message(added)));
  EXPECT_TRUE(tells_of_card(udev_message("ACTION=add\0SUBSYSTEM=net"s)));
  EXPECT_FALSE(tells_of_card(udev_message("ACTION=remove\0SUBSYSTEM=net\0"s)));
  EXPECT_FALSE(tells_of_card(udev_message("ACTION=add\0SUBSYSTEM=pci\0"s)));
}

TEST(UdevMessage, NonsenseTellsNothing) {
  using namespace std::string_literals;
  const std::string added = "ACTION=add\0SUBSYSTEM=net\0"s;
  EXPECT_FALSE(tells_of_card(""));
  EXPECT_FALSE(tells_of_card("add@/devices/x\0"s + added)) << "the kernel's own";
  EXPECT_FALSE(tells_of_card(udev_message(added, 0xffffffffU)));
  for (std::size_t size = 0; size < 40; ++size) {
    EXPECT_FALSE(tells_of_card(udev_message(added).substr(0, size))) << size;
  }
}

}  // namespace
}  // namespace samepage::first_run
