// Leaders, templates and forks on a fake libvirt, and what is left of them when something fails.
#include "migrator/forker.h"

#include <fstream>
#include <thread>

#include <gtest/gtest.h>

#include "migrator/image_domain.h"
#include "migrator/save_image.h"
#include "tests/core/temporary_folder.h"
#include "tests/fakes/fake_boot_disks.h"
#include "tests/fakes/fake_qemu_stream.h"
#include "tests/fakes/fake_vm_control.h"

namespace samepage::migrator {
namespace {

namespace fs = std::filesystem;

constexpr const char* kUuid = "11111111-2222-4333-8444-555555555555";

std::string domain_xml(const fs::path& serial) {
  return "<domain type='qemu'><name>web</name><memory unit='MiB'>1</memory><vcpu>2</vcpu><devices>"
         "<serial type='file'><source path='" +
         serial.string() +
         "'/></serial><interface type='network'><mac address='52:54:00:00:00:01'/>"
         "<source network='lan'/></interface></devices></domain>";
}

class ForkerTest : public testing::Test {
 protected:
  void SetUp() override {
    fs::create_directories(root_);
    shelf_ = TemplateShelf::open({.folder = root_ / "samepage"}).value();
    forker_ = std::make_unique<Forker>(vms_, *shelf_, disks_, clock_);
    std::mt19937_64 random(1);
    const auto stream = fakes::fake_guest_stream(256, random, nullptr);
    const SaveImage image{.xml = domain_xml(root_ / "web.log"),
                          .cookie = "<cookie/>",
                          .was_running = true,
                          .stream = stream};
    vms_.saved = image.serialize();
    vms_.serial = "booting\nready\n";
  }

  LeaderOrder order() const {
    return {.name = "small",
            .domain = domain_xml(root_ / "web.log"),
            .image = {},
            .image_version = 0,
            .hypervisor = "QEMU 7.2.22",
            .ready_when = {.kind = ReadyWhen::Kind::kSerial, .pattern = "read[y]"}};
  }
  Result<std::shared_ptr<const ShelvedTemplate>> make() {
    return forker_->make_template(order(), clock_.now() + std::chrono::milliseconds(200),
                                  [this] { return cancelled_; });
  }
  static ForkOrder fork_order(bool paused = false) {
    return {.identity = {.name = "web3", .id = {kUuid}}, .paused = paused};
  }
  Result<std::shared_ptr<const ShelvedTemplate>> make_with_disk() {
    LeaderOrder with_disk = order();
    with_disk.image = "debian";
    const SaveImage image = SaveImage::parse(vms_.saved).value();
    const std::string leader = TRY(image_domain_xml({.name = "web"}));
    const BootDisks::Disk disk = TRY(disks_.make("web", "debian", 0));
    const auto xml = TRY(leader_xml(leader, {.name = "web", .id = {kUuid}}, disk.element));
    disks_.disks.clear();
    std::vector<std::byte> stream(image.stream.begin(), image.stream.end());
    vms_.saved =
        SaveImage{.xml = xml.xml, .cookie = "", .was_running = true, .stream = stream}.serialize();
    return forker_->make_template(with_disk, clock_.now() + std::chrono::seconds(5),
                                  [] { return false; });
  }
  void expect_nothing_left() {
    EXPECT_TRUE(vms_.vms.empty());
    EXPECT_TRUE(disks_.disks.empty());
    EXPECT_TRUE(shelf_->pending().empty());
    for (const char* part : {"forks", "work"}) {
      EXPECT_TRUE(fs::is_empty(root_ / "samepage" / part)) << part;
    }
  }

  TemporaryFolder folder_;
  const fs::path root_ = folder_.file("ram");
  SystemClock clock_;
  bool cancelled_ = false;
  fakes::FakeVmControl vms_{root_};
  fakes::FakeBootDisks disks_;
  std::unique_ptr<TemplateShelf> shelf_;
  std::unique_ptr<Forker> forker_;
};

TEST_F(ForkerTest, a_leader_becomes_a_template_that_outlives_it) {
  const auto made = make();
  ASSERT_TRUE(made) << made.error().message();
  const TemplateState& state = (*made)->state;
  EXPECT_EQ(state.vcpus, 2U);
  EXPECT_EQ(state.leader.nics.size(), 1U);
  EXPECT_EQ(state.leader.xml.find("leader"), std::string::npos);
  std::ifstream ram((*made)->ram_file());
  EXPECT_EQ(std::string(std::istreambuf_iterator<char>(ram), {}), vms_.ram);
  expect_nothing_left();

  const auto again = TemplateShelf::open({.folder = root_ / "samepage"}).value();
  EXPECT_EQ(again->find("small").value()->state.id, state.id);
}

TEST_F(ForkerTest, a_leader_is_frozen_when_it_has_come_to_rest) {
  vms_.work = std::chrono::milliseconds(400);
  std::thread ends_its_boot([this] {
    std::this_thread::sleep_for(std::chrono::milliseconds(700));
    vms_.work = std::chrono::milliseconds(1);
  });
  const auto began = clock_.now();
  const auto made =
      forker_->make_template(order(), began + std::chrono::seconds(20), [] { return false; });
  const auto took = clock_.now() - began;
  ends_its_boot.join();
  ASSERT_TRUE(made) << made.error().message();
  EXPECT_GE(took, std::chrono::milliseconds(1000)) << "the first look saw it at work";
  EXPECT_LT(took, Forker::kRestMax);
  EXPECT_LT((*made)->state.ready_ms, 700U) << "it was ready before";
}

TEST_F(ForkerTest, a_leader_that_dies_before_it_rests_is_no_template) {
  vms_.fail.emplace("cpu_time", Error(Errc::kNotFound, "no such VM"));
  EXPECT_FALSE(make());
  expect_nothing_left();
}

TEST_F(ForkerTest, a_fork_runs_with_a_name_a_card_and_files_of_its_own) {
  const auto made = make().value();
  ASSERT_TRUE(forker_->fork(*made, fork_order()));
  const auto& vm = vms_.vms.at({kUuid});
  EXPECT_TRUE(vm.running);
  EXPECT_NE(vm.xml.find("<name>web3</name>"), std::string::npos);
  EXPECT_NE(vm.xml.find("web3.log"), std::string::npos);
  EXPECT_NE(vm.xml.find("mode=\"private\""), std::string::npos);
  EXPECT_NE(vm.xml.find(">" + made->state.id + "</samepage:template>"), std::string::npos);
  ASSERT_EQ(vm.devices.size(), 1U);
  EXPECT_NE(vm.devices[0].find("52:54:00:55:55:55"), std::string::npos);
  EXPECT_TRUE(shelf_->pending().empty());

  ASSERT_TRUE(forker_->clean_up());
  EXPECT_TRUE(vms_.vms.contains({kUuid}));
}

TEST_F(ForkerTest, a_standby_does_not_run) {
  const auto made = make().value();
  ASSERT_TRUE(forker_->fork(*made, fork_order(true)));
  EXPECT_FALSE(vms_.vms.at({kUuid}).running);
}

TEST_F(ForkerTest, a_missing_hook_is_named_and_the_fork_never_runs) {
  const auto made = make().value();
  vms_.has_hook = false;
  const auto forked = forker_->fork(*made, fork_order());
  ASSERT_FALSE(forked);
  EXPECT_EQ(forked.error().code(), Errc::kInvalid);
  EXPECT_NE(forked.error().message().find("samepage doctor --fix"), std::string::npos);
  expect_nothing_left();
}

TEST_F(ForkerTest, whatever_fails_leaves_nothing_behind) {
  const auto made = make().value();
  for (const char* method : {"restore", "attach", "resume"}) {
    vms_.fail.insert({method, Error(Errc::kIo, "injected")});
    EXPECT_FALSE(forker_->fork(*made, fork_order())) << method;
    expect_nothing_left();
    vms_.fail.clear();
  }
  shelf_->remove(made->state.id);
  for (const char* method : {"start", "suspend", "save"}) {
    vms_.fail.insert({method, Error(Errc::kIo, "injected")});
    EXPECT_FALSE(make()) << method;
    expect_nothing_left();
    EXPECT_TRUE(shelf_->list().empty());
    vms_.fail.clear();
  }
}

TEST_F(ForkerTest, a_leader_that_dies_or_never_gets_ready_is_reported_with_its_last_words) {
  vms_.serial = "Kernel panic";
  const auto late = make();
  ASSERT_FALSE(late);
  EXPECT_EQ(late.error().code(), Errc::kTimedOut);
  EXPECT_NE(late.error().message().find("Kernel panic"), std::string::npos);
  expect_nothing_left();

  cancelled_ = true;
  EXPECT_EQ(make().error().code(), Errc::kUnavailable);
  expect_nothing_left();
}

TEST_F(ForkerTest, an_impossible_template_is_refused_before_anything_is_started) {
  for (const char* device :
       {"<hostdev/>", "<memory/>", "<disk type='file'><source file='/d'/></disk>",
        "<interface type='vhostuser'/>"}) {
    LeaderOrder impossible = order();
    impossible.domain.insert(impossible.domain.find("<devices>") + 9, device);
    const auto made = forker_->make_template(impossible, clock_.now(), [] { return false; });
    ASSERT_FALSE(made) << device;
    EXPECT_EQ(made.error().code(), Errc::kInvalid);
    expect_nothing_left();
  }
}

TEST_F(ForkerTest, what_a_killed_agent_was_making_is_ended) {
  const auto made = make().value();
  ASSERT_TRUE(forker_->fork(*made, fork_order(true)));
  ASSERT_TRUE(shelf_->note({.name = "web3", .id = {kUuid}},
                           TemplateShelf::Maker::kFork));  // As if killed before the end.
  ASSERT_TRUE(shelf_->lay_ticket(*made, {kUuid}));

  shelf_ = TemplateShelf::open({.folder = root_ / "samepage"}).value();
  forker_ = std::make_unique<Forker>(vms_, *shelf_, disks_, clock_);
  ASSERT_TRUE(forker_->clean_up());
  expect_nothing_left();
  EXPECT_EQ(shelf_->list().size(), 1U);
}

TEST_F(ForkerTest, each_fork_has_a_disk_on_the_leaders_at_the_freeze) {
  const auto made = make_with_disk();
  ASSERT_TRUE(made) << made.error().message();
  const TemplateState& state = (*made)->state;
  EXPECT_EQ(state.image_version, 7U);
  EXPECT_EQ(state.disk_version, 1U);
  expect_nothing_left();

  ASSERT_TRUE(forker_->fork(**made, fork_order()));
  EXPECT_EQ(disks_.disks.at("web3"), "small.disk@1");
  EXPECT_NE(vms_.vms.at({kUuid}).xml.find("/run/web3.nbd"), std::string::npos);
  EXPECT_NE(vms_.vms.at({kUuid}).xml.find(std::string(kUuid) + " web3 vm ="), std::string::npos);

  ASSERT_TRUE(vms_.end({kUuid}));
  EXPECT_EQ(forker_->fork(**made, fork_order()).error().code(), Errc::kInvalid);
  EXPECT_TRUE(disks_.disks.contains("web3")) << "an earlier VM's disk is not ours";
  disks_.disks.clear();
  ASSERT_TRUE(forker_->boot_cold(state, fork_order()));
  EXPECT_EQ(disks_.disks.at("web3"), "debian@7");
}

TEST_F(ForkerTest, no_disk_stays_of_what_was_not_booted) {
  const auto made = make_with_disk().value();
  for (const char* method : {"restore", "resume"}) {
    vms_.fail.insert({method, Error(Errc::kIo, "injected")});
    EXPECT_FALSE(forker_->fork(*made, fork_order())) << method;
    expect_nothing_left();
    vms_.fail.clear();
  }
  disks_.refuses = true;
  EXPECT_FALSE(forker_->fork(*made, fork_order()));
  expect_nothing_left();
  disks_.refuses = false;

  ASSERT_TRUE(forker_->fork(*made, fork_order(true)));
  const VmIdentity vm{.name = "web3", .id = {kUuid}};
  ASSERT_TRUE(shelf_->note(vm, TemplateShelf::Maker::kFork));  // As if killed before the end.
  ASSERT_TRUE(forker_->clean_up());
  expect_nothing_left();
}

TEST_F(ForkerTest, room_is_made_by_dropping_templates_that_nobody_uses) {
  const std::string id = make().value()->state.id;
  const fs::path link = root_ / "fork.ram";
  fs::create_hard_link(shelf_->find(id).value()->ram_file(), link);
  const std::uint64_t all = TemplateShelf::Options{}.bytes_max;
  ASSERT_TRUE(shelf_->make_room(1));
  EXPECT_EQ(shelf_->make_room(all + 1).error().code(), Errc::kUnavailable);
  EXPECT_EQ(shelf_->list().size(), 1U);
  EXPECT_EQ(shelf_->list()[0].forks, 1U);
}

TEST(TemplateState, comes_back_or_is_corrupt) {
  TemplateState state{.name = "small",
                      .id = std::string(32, 'a'),
                      .image = "debian",
                      .image_version = 3,
                      .disk_version = 2,
                      .memory_bytes = 1U << 20U,
                      .vcpus = 1,
                      .hypervisor = "QEMU 7.2.22",
                      .ready_ms = 7,
                      .ram_block = "pc.ram",
                      .leader = {.xml = "<domain/>", .nics = {"<interface/>"}},
                      .cookie = "c",
                      .stream = {std::byte{1}}};
  const auto bytes = state.serialize();
  const auto read = TemplateState::parse(bytes);
  ASSERT_TRUE(read) << read.error().message();
  EXPECT_EQ(read->serialize(), bytes);
  for (std::size_t size = 0; size < bytes.size(); ++size) {
    const auto part = TemplateState::parse(std::span(bytes).first(size));
    ASSERT_FALSE(part);
    EXPECT_EQ(part.error().code(), Errc::kCorrupt);
  }
  state.ram_block = "../pc.ram";
  EXPECT_EQ(TemplateState::parse(state.serialize()).error().code(), Errc::kCorrupt);
}

}  // namespace
}  // namespace samepage::migrator
