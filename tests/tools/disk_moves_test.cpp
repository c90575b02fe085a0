// A disk that goes from one host's agent to another's, each served by a real nbdkit process: whole,
// where it may stand and be called so, and after whatever end of the migration in its right place.
#include "tools/samepaged/disk_moves.h"

#include <algorithm>
#include <csignal>
#include <thread>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <libnbd.h>

#include "core/handle.h"
#include "tests/fakes/fake_hypervisor.h"
#include "tests/fakes/fake_vm_control.h"
#include "tests/imagestore/store_harness.h"
#include "tests/tools/sanitizer_preload.h"

namespace samepage::agent {
namespace {

using imagestore::Scratch;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

using Nbd = Handle<nbd_handle, nbd_close>;

const VmId kVm{"11111111-2222-3333-4444-555555555555"};

/// The disks of one host.
struct DiskHost {
  DiskHost(const std::filesystem::path& folder, const std::filesystem::path& store) {
    options.folder = folder / "disks";
    options.mirrors = folder / "mirrors";
    options.run_dir = folder / "run";
    options.store.folder = store;
    options.plugin = SAMEPAGE_NBDKIT_PLUGIN;
    options.host = folder.filename();
    start_agent();
  }
  ~DiskHost() {
    const bus::DiskReply left = disks->list();
    for (const auto& disk : left.disks()) {
      static_cast<void>(disks->set_moving(disk.name(), false));
      EXPECT_TRUE(disks->remove(disk.name()));
    }
  }

  void start_agent() {
    disks.reset();
    disks = Disks::create(options, hypervisor, clock).value();
  }

  std::string phase(const std::string& name) const {
    const auto found = disks->find(name);
    return found ? found->phase() : "none";
  }

  bool comes_to(const std::string& name, const std::string& wanted) const {
    const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(20);
    while (phase(name) != wanted && std::chrono::steady_clock::now() < end) {
      std::this_thread::sleep_for(std::chrono::milliseconds(10));
    }
    return phase(name) == wanted;
  }

  Nbd connect(const std::string& name) const {
    Nbd nbd(nbd_create());
    EXPECT_EQ(nbd_connect_unix(nbd.get(), disks->socket_of(name).c_str()), 0) << nbd_get_error();
    return nbd;
  }

  std::vector<std::byte> read_all(const std::string& name) const {
    const auto nbd = connect(name);
    std::vector<std::byte> bytes(static_cast<std::size_t>(nbd_get_size(nbd.get())));
    EXPECT_EQ(nbd_pread(nbd.get(), bytes.data(), bytes.size(), 0, 0), 0) << nbd_get_error();
    return bytes;
  }

  SystemClock clock;
  fakes::FakeHypervisor hypervisor;
  Disks::Options options;
  std::unique_ptr<Disks> disks;
};

class DiskMovesTest : public ::testing::Test {
 protected:
  DiskMovesTest() {
    imagestore::write_file(scratch_ / "image", imagestore::disk_bytes(500, 1));
    store_ = imagestore::open_store(scratch_ / "store");
    EXPECT_TRUE(imagestore::import_file(*store_, scratch_ / "image", "base"));
    source_ = std::make_unique<DiskHost>(scratch_ / "source", scratch_ / "store");
    target_ = std::make_unique<DiskHost>(scratch_ / "target", scratch_ / "store");
    EXPECT_TRUE(source_->disks->create({.name = "web", .image = "base", .vm = "web"}));
    write(7, 30'000);
    const auto nbd = source_->connect("web");
    EXPECT_EQ(nbd_trim(nbd.get(), 81'920, 819'200, 0), 0);
  }

  void write(std::uint64_t offset, std::size_t size) {
    const auto nbd = source_->connect("web");
    const auto bytes = imagestore::random_bytes(size, offset);
    ASSERT_EQ(nbd_pwrite(nbd.get(), bytes.data(), bytes.size(), offset, 0), 0);
  }

  std::unique_ptr<DepartingDisks> departing() {
    vms_.vms[kVm].xml = ("<domain><name>web</name><devices>" + source_->disks->xml("web", "vda") +
                         "</devices></domain>");
    return DepartingDisks::of_vm(kVm, vms_, *source_->disks).value();
  }

  static std::unique_ptr<ComingDisks> coming(DiskHost& host, const std::string& vm = "web") {
    return std::make_unique<ComingDisks>(VmInfo{.id = kVm, .name = vm}, *host.disks);
  }

  static void carry_round(migrator::LeavingDisk& leaving, migrator::ArrivingDisk& arriving) {
    for (bool is_last = false; !is_last;) {
      const auto parcel = leaving.next();
      ASSERT_TRUE(parcel) << parcel.error().message();
      is_last = parcel->is_last;
      if (parcel->bytes.empty()) continue;
      ASSERT_TRUE(arriving.put(parcel->bytes));
    }
  }

  /// As a session does it. The disk at the source is written to in between.
  std::unique_ptr<migrator::ArrivingDisk> carry(migrator::LeavingDisk& leaving,
                                                ComingDisks& coming) {
    const auto offer = leaving.offer();
    EXPECT_TRUE(offer);
    auto arriving = coming.expect(*offer);
    EXPECT_TRUE(arriving) << arriving.error().message();
    if (!arriving) return nullptr;
    EXPECT_TRUE(leaving.begin((*arriving)->answer()));
    carry_round(leaving, **arriving);
    write(123'456, 5'000);
    EXPECT_TRUE((*arriving)->flush());
    carry_round(leaving, **arriving);
    return *std::move(arriving);
  }

  SanitizerPreload preload_;
  Scratch scratch_;
  fakes::FakeVmControl vms_{scratch_ / "backing"};
  std::unique_ptr<imagestore::ImageStore> store_;
  std::unique_ptr<DiskHost> source_;
  std::unique_ptr<DiskHost> target_;
};

TEST_F(DiskMovesTest, TheDiskIsThereAndGoneHere) {
  auto departing = this->departing();
  auto leaving = departing->leave().value();
  ASSERT_EQ(leaving.size(), 1U);
  EXPECT_EQ(source_->phase("web"), "leaving");
  auto coming = this->coming(*target_);
  {
    const auto arriving = carry(*leaving.front(), *coming);
    EXPECT_EQ(target_->phase("web"), "arriving");
    ASSERT_TRUE(arriving->complete());
    EXPECT_EQ(target_->phase("web"), "arrived");
  }
  const auto bytes = source_->read_all("web");
  leaving.clear();
  coming->ended(migrator::Copy::kRunning);
  departing->ended(migrator::Side::kTarget);
  EXPECT_EQ(target_->phase("web"), "here");
  EXPECT_EQ(source_->phase("web"), "none");
  EXPECT_FALSE(std::filesystem::exists(source_->options.folder / "web"));
  EXPECT_EQ(target_->read_all("web"), bytes);

  target_->start_agent();
  EXPECT_EQ(target_->phase("web"), "here");
  EXPECT_EQ(target_->read_all("web"), bytes);
}

TEST_F(DiskMovesTest, WhoHasItOpenWhileItComesGoesOnWithIt) {
  // As QEMU does; and the disk is made by a thread that does not outlive the session.
  auto departing = this->departing();
  auto leaving = departing->leave().value();
  auto coming = this->coming(*target_);
  Nbd nbd;
  {
    const std::jthread session([&] {
      const auto offer = leaving.front()->offer();
      const auto arriving = coming->expect(*offer).value();
      nbd = target_->connect("web");
      EXPECT_TRUE(leaving.front()->begin(arriving->answer()));
      carry_round(*leaving.front(), *arriving);
      EXPECT_TRUE(arriving->complete());
    });
  }
  const auto bytes = source_->read_all("web");
  leaving.clear();
  coming->ended(migrator::Copy::kRunning);
  departing->ended(migrator::Side::kTarget);
  std::this_thread::sleep_for(std::chrono::seconds(1));
  std::vector<std::byte> there(bytes.size());
  ASSERT_EQ(nbd_pread(nbd.get(), there.data(), there.size(), 0, 0), 0) << nbd_get_error();
  EXPECT_EQ(there, bytes);
  EXPECT_EQ(nbd_pwrite(nbd.get(), bytes.data(), 4096, 8192, 0), 0) << nbd_get_error();
}

TEST_F(DiskMovesTest, AMigrationThatFailsLeavesItWhereItWas) {
  auto departing = this->departing();
  auto leaving = departing->leave().value();
  auto coming = this->coming(*target_);
  ASSERT_TRUE(carry(*leaving.front(), *coming)->complete());
  leaving.clear();
  coming->ended(migrator::Copy::kNone);
  departing->ended(migrator::Side::kSource);
  EXPECT_EQ(target_->phase("web"), "none");
  EXPECT_EQ(source_->phase("web"), "here");
  EXPECT_TRUE(source_->disks->commit("web", "", false));
}

TEST_F(DiskMovesTest, WhatTheLastCommitHasNeedNotCome) {
  ASSERT_TRUE(source_->disks->commit("web", "golden", false));
  auto departing = this->departing();
  auto leaving = departing->leave().value();
  auto coming = this->coming(*target_);
  ASSERT_TRUE(carry(*leaving.front(), *coming)->complete());
  EXPECT_EQ(target_->read_all("web"), source_->read_all("web"));
  const auto there = target_->disks->find("web");
  EXPECT_NE(there->base(), source_->disks->find("web")->base());
  EXPECT_LT(there->written_bytes(), 30'000U);
  leaving.clear();
  coming->ended(migrator::Copy::kRunning);
  departing->ended(migrator::Side::kTarget);
  EXPECT_EQ(target_->disks->commit("web", "golden", false)->number(), 3U);
}

TEST_F(DiskMovesTest, ADiskThatMovesIsNotCommittedRemovedOrMovedElsewhere) {
  auto departing = this->departing();
  const auto leaving = departing->leave().value();
  auto coming = this->coming(*target_);
  const auto arriving = carry(*leaving.front(), *coming);
  for (DiskHost* host : {source_.get(), target_.get()}) {
    EXPECT_EQ(host->disks->commit("web", "", false).error().code(), Errc::kInvalid);
    EXPECT_EQ(host->disks->remove("web").error().code(), Errc::kInvalid);
  }
  EXPECT_EQ(this->departing()->leave().error().code(), Errc::kInvalid);
}

TEST_F(DiskMovesTest, ADiskOfTheNameIsNotReplaced) {
  ASSERT_TRUE(target_->disks->create({.name = "web", .image = "base"}));
  const auto leaving = departing()->leave().value();
  const auto refused = coming(*target_)->expect(*leaving.front()->offer());
  EXPECT_THAT(refused.error().message(), HasSubstr("a disk web on that host already"));
  EXPECT_EQ(target_->phase("web"), "here");
}

TEST_F(DiskMovesTest, AStoreThatDoesNotHaveTheImageIsSaid) {
  imagestore::open_store(scratch_ / "other");
  DiskHost stranger(scratch_ / "stranger", scratch_ / "other");
  const auto leaving = departing()->leave().value();
  const auto refused = coming(stranger)->expect(*leaving.front()->offer());
  EXPECT_THAT(refused.error().message(), HasSubstr("does not have the version of image base"));
  EXPECT_EQ(stranger.disks->list().disks_size(), 0);
}

TEST_F(DiskMovesTest, HostileWordsMakeNoDisk) {
  const auto expect_refused = [&](const bus::DiskOffer& offer) {
    const std::string words = offer.SerializeAsString();
    EXPECT_FALSE(coming(*target_)->expect(std::as_bytes(std::span(words))));
    EXPECT_EQ(target_->disks->list().disks_size(), 0);
  };
  const bus::DiskOffer good = source_->disks->offer("web").value();
  bus::DiskOffer offer = good;
  offer.set_name("../../etc/cron.d/x");
  expect_refused(offer);
  offer = good;
  offer.set_image("base folder=/etc");
  expect_refused(offer);
  offer = good;
  offer.set_size_bytes(UINT64_MAX);
  expect_refused(offer);
  offer = good;
  offer.set_size_bytes(4096);
  expect_refused(offer);
  offer = good;
  offer.set_base("short");
  offer.set_committed("short");
  expect_refused(offer);
  offer = good;
  offer.set_held_bytes(UINT64_MAX / 2);
  offer.set_dirty_bytes(UINT64_MAX / 2);
  expect_refused(offer);
  const std::string noise = "\xff\xff\xff nothing";
  EXPECT_FALSE(coming(*target_)->expect(std::as_bytes(std::span(noise))));
}

TEST_F(DiskMovesTest, WhatKilledAgentsLeaveIsSettledByWhereTheVmIs) {
  {
    auto departing = this->departing();
    auto leaving = departing->leave().value();
    auto coming = this->coming(*target_);
    carry(*leaving.front(), *coming);
    // Neither hears of an end.
  }
  VmInfo running{.id = kVm, .name = "web", .state = VmState::kRunning};
  source_->hypervisor.add(running);
  source_->start_agent();
  target_->start_agent();
  EXPECT_TRUE(source_->comes_to("web", "here"));
  EXPECT_TRUE(target_->comes_to("web", "none"));
  source_->hypervisor.remove(kVm);
}

TEST_F(DiskMovesTest, InDoubtBothStayAndTheNextMoveClearsUp) {
  {
    auto departing = this->departing();
    auto leaving = departing->leave().value();
    auto coming = this->coming(*target_);
    ASSERT_TRUE(carry(*leaving.front(), *coming)->complete());
  }
  source_->start_agent();
  target_->start_agent();
  std::this_thread::sleep_for(std::chrono::seconds(3));  // More than the tender's interval.
  EXPECT_EQ(source_->phase("web"), "leaving");
  EXPECT_EQ(target_->phase("web"), "arrived");

  // The guest was resumed here, and here only.
  target_->hypervisor.add({.id = kVm, .name = "web", .state = VmState::kRunning});
  EXPECT_TRUE(target_->comes_to("web", "here"));
  target_->hypervisor.remove(kVm);
  auto back = this->coming(*source_);
  const std::string words = target_->disks->offer("web")->SerializeAsString();
  EXPECT_TRUE(back->expect(std::as_bytes(std::span(words))));
  EXPECT_EQ(source_->phase("web"), "arriving");
  back->ended(migrator::Copy::kNone);
}

TEST_F(DiskMovesTest, ACopyThatThePlacerHadDiscardedTakesItsDiskWithIt) {
  {
    auto departing = this->departing();
    auto leaving = departing->leave().value();
    auto coming = this->coming(*target_);
    ASSERT_TRUE(carry(*leaving.front(), *coming)->complete());
  }
  target_->disks->copy_discarded(kVm);
  EXPECT_TRUE(target_->comes_to("web", "none"));
}

TEST_F(DiskMovesTest, ASocketInTheFolderWithoutADiskIsRefused) {
  vms_.vms[kVm].xml =
      ("<domain><devices>" + source_->disks->xml("lost", "vda") + "</devices></domain>");
  EXPECT_EQ(DepartingDisks::of_vm(kVm, vms_, *source_->disks).error().code(), Errc::kInvalid);
  vms_.vms[kVm].xml =
      ("<domain><devices><disk><source protocol='nbd'><host transport='unix' "
       "socket='/run/of/others.nbd'/></source></disk></devices></domain>");
  EXPECT_THAT(DepartingDisks::of_vm(kVm, vms_, *source_->disks).value()->leave().value(),
              IsEmpty());
}

}  // namespace
}  // namespace samepage::agent
