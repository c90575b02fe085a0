// The disks of a host, served by real nbdkit processes: made, read and written over NBD, committed,
// cloned, found again by the next agent, started again when they are killed, and removed.
#include "tools/samepaged/disks.h"

#include <csignal>
#include <cstdlib>
#include <random>
#include <thread>

#include <gtest/gtest.h>
#include <libnbd.h>
#include <sys/socket.h>

#include "core/handle.h"
#include "imagestore/image_reader.h"
#include "imagestore/store_listener.h"
#include "imagestore/store_socket.h"
#include "imagestore/verifier.h"
#include "tests/fakes/fake_hypervisor.h"
#include "tests/imagestore/killing.h"
#include "tests/imagestore/small_disk.h"
#include "tests/imagestore/store_harness.h"
#include "tests/tools/sanitizer_preload.h"

namespace samepage::agent {
namespace {

using imagestore::ImageReader;
using imagestore::Scratch;

using Nbd = Handle<nbd_handle, nbd_close>;

class DisksTest : public ::testing::Test {
 protected:
  DisksTest() : bytes_(imagestore::disk_bytes(500, 1)) {
    imagestore::write_file(scratch_ / "image", bytes_);
    store_ = imagestore::open_store(scratch_ / "store");
    EXPECT_TRUE(imagestore::import_file(*store_, scratch_ / "image", "base"));
    options_.folder = scratch_ / "disks";
    options_.mirrors = scratch_ / "mirrors";
    options_.run_dir = scratch_ / "run";
    options_.store.folder = scratch_ / "store";
    options_.plugin = SAMEPAGE_NBDKIT_PLUGIN;
    options_.pause_max = std::chrono::milliseconds(50);
    start_agent();
  }
  ~DisksTest() override {
    if (disks_ == nullptr) start_agent();
    const bus::DiskReply left = disks_->list();
    for (const auto& disk : left.disks()) EXPECT_TRUE(disks_->remove(disk.name()));
  }

  void start_agent() {
    disks_.reset();
    auto disks = Disks::create(options_, hypervisor_, clock_);
    ASSERT_TRUE(disks) << disks.error().message();
    disks_ = *std::move(disks);
  }

  void create(const std::string& name, const std::string& vm = "") {
    const auto made = disks_->create({.name = name, .image = "base", .vm = vm});
    ASSERT_TRUE(made) << made.error().message();
    EXPECT_TRUE(made->serves());
  }

  Nbd connect(const std::string& name) const {
    const std::string socket = disks_->socket_of(name);
    Nbd nbd;
    EXPECT_TRUE(eventually([&] {
      nbd.reset(nbd_create());
      return nbd_connect_unix(nbd.get(), socket.c_str()) == 0;
    })) << nbd_get_error();
    return nbd;
  }

  /// The store is sound, and the image's newest version holds what was written to the disk.
  void expect_newest_version_is_whole(const std::string& image) {
    auto reader = ImageReader::open(*store_, image, 0);
    ASSERT_TRUE(reader);
    std::vector<std::byte> version(bytes_.size());
    ASSERT_TRUE((*reader)->read(0, version));
    EXPECT_EQ(version, bytes_);
    EXPECT_TRUE(imagestore::verify_store(*store_, {})->clean());
  }

  static std::vector<std::byte> read_all(nbd_handle& nbd) {
    std::vector<std::byte> bytes(static_cast<std::size_t>(nbd_get_size(&nbd)));
    EXPECT_EQ(nbd_pread(&nbd, bytes.data(), bytes.size(), 0, 0), 0) << nbd_get_error();
    return bytes;
  }

  pid_t pid_of(const std::string& name) const {
    const auto socket = imagestore::connect_store(options_.run_dir / (name + ".control"));
    ucred peer{};
    socklen_t size = sizeof peer;
    if (!socket) return 0;
    ::getsockopt(socket->get(), SOL_SOCKET, SO_PEERCRED, &peer, &size);
    return peer.pid;
  }

  template <class Condition>
  static bool eventually(Condition condition) {
    const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(30);
    while (std::chrono::steady_clock::now() < end) {
      if (condition()) return true;
      std::this_thread::sleep_for(std::chrono::milliseconds(10));
    }
    return false;
  }

  void kill_process(const std::string& name) {
    const pid_t before = pid_of(name);
    ASSERT_GT(before, 0);
    ::kill(before, SIGKILL);
    ASSERT_TRUE(eventually([&] { return pid_of(name) > 0 && pid_of(name) != before; }));
  }

  SanitizerPreload preload_;
  Scratch scratch_;
  SystemClock clock_;
  fakes::FakeHypervisor hypervisor_;
  std::vector<std::byte> bytes_;
  std::unique_ptr<imagestore::ImageStore> store_;
  Disks::Options options_;
  std::unique_ptr<Disks> disks_;
};

TEST_F(DisksTest, ServesAnImageAndTakesWrites) {
  create("web1");
  const auto nbd = connect("web1");
  EXPECT_EQ(read_all(*nbd), bytes_);
  const auto fresh = imagestore::random_bytes(10'000, 3);
  ASSERT_EQ(nbd_pwrite(nbd.get(), fresh.data(), fresh.size(), 777, LIBNBD_CMD_FLAG_FUA), 0);
  ASSERT_EQ(nbd_zero(nbd.get(), 50'000, 100'001, 0), 0);
  ASSERT_EQ(nbd_trim(nbd.get(), 81'920, 819'200, 0), 0);
  ASSERT_EQ(nbd_flush(nbd.get(), 0), 0);
  std::copy(fresh.begin(), fresh.end(), bytes_.begin() + 777);
  std::fill_n(bytes_.begin() + 100'001, 50'000, std::byte{0});
  std::fill_n(bytes_.begin() + 819'200, 81'920, std::byte{0});

  EXPECT_EQ(read_all(*nbd), bytes_);
  const auto state = disks_->find("web1");
  ASSERT_TRUE(state);
  EXPECT_GT(state->written_bytes(), 10'000U);
  EXPECT_GT(state->zeroed_bytes(), 81'919U);
  EXPECT_EQ(disks_->list().disks_size(), 1);
}

TEST_F(DisksTest, ReadsThroughTheHostsStoreNode) {
  const auto node =
      imagestore::StoreNode::create(imagestore::small_node(), {store_->keys()}, clock_).value();
  options_.store_socket = scratch_ / "store.sock";
  const auto listener =
      imagestore::StoreListener::create({.path = options_.store_socket}, *node).value();
  // Pages that are read before the process has its lease come from the origin alone: each try is
  // the first read of a host.
  int tries = 0;
  EXPECT_TRUE(eventually([&] {
    const std::string name = "web" + std::to_string(++tries);
    options_.mirrors = scratch_ / ("mirrors-" + name);
    start_agent();
    create(name);
    EXPECT_EQ(read_all(*connect(name)), bytes_);
    EXPECT_EQ(read_all(*connect(name)), bytes_);
    return node->report().extents() > 0;
  }));
}

TEST_F(DisksTest, SaysThatItsFileSystemIsFullAndGoesOn) {
  const imagestore::SmallDisk small(scratch_ / "small", 1U << 20U);
  options_.folder = scratch_ / "small/disks";
  start_agent();
  create("web1");
  {
    const auto nbd = connect("web1");
    const auto fresh = imagestore::random_bytes(100'000, 3);
    std::uint64_t offset = 0;
    int failed = 0;
    while (failed == 0 && offset + fresh.size() < bytes_.size()) {
      failed = nbd_pwrite(nbd.get(), fresh.data(), fresh.size(), offset, 0);
      offset += failed == 0 ? fresh.size() : 0;
    }
    ASSERT_EQ(failed, -1);
    EXPECT_EQ(nbd_get_errno(), ENOSPC) << "so QEMU stops the guest and repeats it later";
    std::vector<std::byte> page(fresh.size());
    EXPECT_EQ(nbd_pread(nbd.get(), page.data(), page.size(), 0, 0), 0);
    EXPECT_EQ(page, fresh);

    ASSERT_TRUE(small.resize(16U << 20U));
    EXPECT_EQ(nbd_pwrite(nbd.get(), fresh.data(), fresh.size(), offset, 0), 0);
    EXPECT_EQ(nbd_pread(nbd.get(), page.data(), page.size(), offset, 0), 0);
    EXPECT_EQ(page, fresh);
  }
  EXPECT_TRUE(disks_->remove("web1"));
  disks_.reset();
  options_.folder = scratch_ / "disks";
}

TEST_F(DisksTest, RefusesWhatCannotBe) {
  create("web1");
  EXPECT_EQ(disks_->create({.name = "web1", .image = "base"}).error().code(), Errc::kInvalid);
  EXPECT_EQ(disks_->create({.name = "../x", .image = "base"}).error().code(), Errc::kInvalid);
  EXPECT_EQ(disks_->create({.name = "web2", .image = "none"}).error().code(), Errc::kNotFound);
  EXPECT_EQ(disks_->create({.name = "web2", .image = "base", .size_bytes = 1}).error().code(),
            Errc::kInvalid);
  EXPECT_EQ(disks_->find("web2").error().code(), Errc::kNotFound);
  EXPECT_EQ(disks_->remove("web2").error().code(), Errc::kNotFound);
  EXPECT_FALSE(std::filesystem::exists(options_.folder / "web2"));
}

TEST_F(DisksTest, OutlivesTheAgentAndThePlugin) {
  create("web1");
  auto nbd = connect("web1");
  const auto fresh = imagestore::random_bytes(9'999, 3);
  ASSERT_EQ(nbd_pwrite(nbd.get(), fresh.data(), fresh.size(), 5'000, 0), 0);
  std::copy(fresh.begin(), fresh.end(), bytes_.begin() + 5'000);
  const pid_t pid = pid_of("web1");

  start_agent();
  EXPECT_EQ(pid_of("web1"), pid);
  EXPECT_EQ(read_all(*nbd), bytes_);

  kill_process("web1");
  EXPECT_EQ(read_all(*connect("web1")), bytes_);

  // Killed while no agent is there to see it.
  disks_.reset();
  ::kill(pid_of("web1"), SIGKILL);
  ASSERT_TRUE(eventually([&] { return pid_of("web1") == 0; }));
  start_agent();
  ASSERT_TRUE(eventually([&] { return pid_of("web1") > 0; }));
  EXPECT_EQ(read_all(*connect("web1")), bytes_);
}

TEST_F(DisksTest, LetsTheVmGoOnAfterThePluginWasAway) {
  VmInfo vm;
  vm.id = {"11111111-2222-4333-8444-555555555555"};
  vm.name = "web1";
  vm.state = VmState::kPaused;
  hypervisor_.add(vm);
  create("web1", "web1");
  EXPECT_EQ(disks_->remove("web1").error().code(), Errc::kInvalid);

  kill_process("web1");

  EXPECT_TRUE(eventually([&] { return hypervisor_.vms()->front().state == VmState::kRunning; }));
  hypervisor_.remove(vm.id);
}

TEST_F(DisksTest, CommitsAndClones) {
  create("web1");
  const auto nbd = connect("web1");
  const auto fresh = imagestore::random_bytes(50'000, 3);
  ASSERT_EQ(nbd_pwrite(nbd.get(), fresh.data(), fresh.size(), 0, 0), 0);
  std::copy(fresh.begin(), fresh.end(), bytes_.begin());

  const auto committed = disks_->commit("web1", "golden", true);
  ASSERT_TRUE(committed) << committed.error().message();
  EXPECT_EQ(committed->image(), "golden");
  EXPECT_FALSE(committed->guest_frozen());
  EXPECT_FALSE(committed->note().empty());
  auto reader = ImageReader::open(*store_, "golden", 0);
  ASSERT_TRUE(reader);
  std::vector<std::byte> version(bytes_.size());
  ASSERT_TRUE((*reader)->read(0, version));
  EXPECT_EQ(version, bytes_);

  const auto cloned = disks_->clone("web1", "web2", "");
  ASSERT_TRUE(cloned) << cloned.error().message();
  ASSERT_EQ(nbd_zero(nbd.get(), 100'000, 0, 0), 0);
  EXPECT_EQ(read_all(*connect("web2")), bytes_);
  EXPECT_TRUE(imagestore::verify_store(*store_, {})->clean());
}

TEST_F(DisksTest, LosesNothingWhenThePluginIsKilledInMidCommit) {
  const std::uint64_t kills = imagestore::strikes(8);
  std::mt19937_64 random(imagestore::test_seed());
  create("web1");
  std::uint64_t acknowledged = 0;
  unsigned cut_off = 0;
  for (std::uint64_t i = 0; i < kills; ++i) {
    {
      const auto nbd = connect("web1");
      for (int write = 0; write < 10; ++write) {
        const std::uint64_t offset = random() % (bytes_.size() - 30'000);
        const auto fresh = imagestore::random_bytes(1 + random() % 30'000, random());
        ASSERT_EQ(nbd_pwrite(nbd.get(), fresh.data(), fresh.size(), offset, 0), 0);
        std::copy(fresh.begin(), fresh.end(), bytes_.begin() + static_cast<long>(offset));
      }
      if (i % 2 == 0) {
        ASSERT_EQ(nbd_flush(nbd.get(), 0), 0);
      }
    }
    Result<bus::DiskCommitted> committed = fail(Errc::kInvalid, "not run");
    {
      std::jthread committer([&] { committed = disks_->commit("web1", "", false); });
      std::this_thread::sleep_for(std::chrono::milliseconds(random() % 25));
      kill_process("web1");
    }
    if (committed) acknowledged = committed->number();
    cut_off += committed ? 0 : 1;
    ASSERT_EQ(read_all(*connect("web1")), bytes_) << "after kill " << i;
    if (acknowledged > 0) {
      ASSERT_GE(store_->catalog().find("web1")->head.number, acknowledged);
    }
  }
  const auto last = disks_->commit("web1", "", false);
  ASSERT_TRUE(last) << last.error().message();
  expect_newest_version_is_whole("web1");
  std::cout << cut_off << " of " << kills << " commits were cut off\n";
}

TEST_F(DisksTest, LosesNothingWhenTheAgentIsKilledInMidCommit) {
  const std::uint64_t kills = imagestore::strikes(8);
  std::mt19937_64 random(imagestore::test_seed());
  create("web1");
  const auto nbd = connect("web1");
  disks_.reset();
  const imagestore::Shared told;
  unsigned acknowledged = 0;
  for (std::uint64_t i = 0; i < kills; ++i) {
    for (int write = 0; write < 10; ++write) {
      const std::uint64_t offset = random() % (bytes_.size() - 30'000);
      const auto fresh = imagestore::random_bytes(1 + random() % 30'000, random());
      ASSERT_EQ(nbd_pwrite(nbd.get(), fresh.data(), fresh.size(), offset, 0), 0);
      std::copy(fresh.begin(), fresh.end(), bytes_.begin() + static_cast<long>(offset));
    }
    const std::uint64_t before = told->done;
    const auto moment = std::chrono::microseconds(random() % 300'000);
    const int status = imagestore::kill_in(told, moment, [&] {
      const auto agent = Disks::create(options_, hypervisor_, clock_);
      if (!agent) ::_exit(1);
      told->ready = true;
      while (true) {
        if (const auto committed = (*agent)->commit("web1", "", false)) {
          told->done = committed->number();
        }
      }
    });
    ASSERT_TRUE(imagestore::was_killed(status)) << "exit " << WEXITSTATUS(status);
    acknowledged += told->done > before ? 1 : 0;
    if (told->done > 0) {
      ASSERT_GE(store_->catalog().find("web1")->head.number, told->done);
    }
    ASSERT_EQ(read_all(*nbd), bytes_) << "the disk's process outlives the agent";
  }
  start_agent();
  // The disk's process may still be busy with what the last agent asked for.
  ASSERT_TRUE(eventually([&] { return disks_->commit("web1", "", false).has_value(); }));
  expect_newest_version_is_whole("web1");
  std::cout << acknowledged << " commits acknowledged before one of " << kills << " kills\n";
}

TEST_F(DisksTest, HoldsWhatDisksStandOn) {
  create("web1");
  const auto now = std::chrono::floor<std::chrono::seconds>(clock_.today());
  EXPECT_EQ(store_->catalog().remove("base", now).error().code(), Errc::kUnavailable);

  ASSERT_TRUE(disks_->remove("web1"));

  EXPECT_TRUE(store_->catalog().remove("base", now));
}

TEST_F(DisksTest, SaysHowLibvirtSeesADisk) {
  const std::string xml = disks_->xml("web1", "vda");
  EXPECT_NE(xml.find("<host transport='unix' socket='" + disks_->socket_of("web1") + "'/>"),
            std::string::npos);
  EXPECT_NE(xml.find("error_policy='stop'"), std::string::npos);
}

}  // namespace
}  // namespace samepage::agent
