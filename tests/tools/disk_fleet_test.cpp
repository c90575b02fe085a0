// A disk of a host that its placer has committed, over the real bus, with a real nbdkit process: a
// placer that is killed (SIGKILL) in mid-commit loses nothing that it acknowledged, and the next
// one goes on. SAMEPAGE_FAULTS=1000 runs the whole campaign.

#include <atomic>
#include <csignal>
#include <cstdlib>
#include <random>
#include <thread>

#include <gtest/gtest.h>
#include <libnbd.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "core/handle.h"
#include "imagestore/image_reader.h"
#include "imagestore/store_socket.h"
#include "imagestore/verifier.h"
#include "tests/imagestore/killing.h"
#include "tests/imagestore/scratch.h"
#include "tests/tools/sanitizer_preload.h"
#include "tests/tools/services_harness.h"

namespace samepage {
namespace {

using Nbd = Handle<nbd_handle, nbd_close>;

class DiskFleetTest : public ServicesTest {
 protected:
  void SetUp() override {
    ServicesTest::SetUp();
    imagestore::write_file(folder_.file("image"), bytes_);
    ASSERT_TRUE(
        imagestore::import_file(*imagestore::open_store(pool_), folder_.file("image"), "base"));
    host_ = enrolled_host("host1");
    host_->options().store_dir = pool_;
    host_->options().nbdkit_plugin = SAMEPAGE_NBDKIT_PLUGIN;
  }

  /// The disk's process outlives everybody but this.
  void TearDown() override {
    host_.reset();
    if (const pid_t pid = disk_process(); pid > 0) ::kill(pid, SIGKILL);
  }

  pid_t disk_process() const {
    const auto socket = imagestore::connect_store(folder_.file("host1/disks/disk1.control"));
    ucred peer{};
    socklen_t size = sizeof peer;
    if (!socket) return 0;
    ::getsockopt(socket->get(), SOL_SOCKET, SO_PEERCRED, &peer, &size);
    return peer.pid;
  }

  static Deadline soon() { return std::chrono::steady_clock::now() + kPatience; }

  /// What the host says, once it answers.
  Result<bus::DiskReply> ask(const bus::DiskRequest& request) {
    const Deadline give_up = soon();
    auto reply = placer_->ask_disk("host1", request, give_up);
    while (!reply && reply.error().code() == Errc::kUnavailable &&
           std::chrono::steady_clock::now() < give_up) {
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
      reply = placer_->ask_disk("host1", request, give_up);
    }
    return reply;
  }

  static bus::DiskRequest list() {
    bus::DiskRequest request;
    request.mutable_list();
    return request;
  }
  static bus::DiskRequest commit() {
    bus::DiskRequest request;
    request.set_name("disk1");
    request.mutable_commit()->set_freeze_guest(false);
    return request;
  }

  [[noreturn]] void commit_until_killed(const imagestore::Shared& told) {
    start_placer();
    if (!ask(list())) ::_exit(1);
    told->ready = true;
    while (true) {
      if (const auto reply = ask(commit())) told->done = reply->committed().number();
    }
  }

  Nbd connect() const {
    const std::string socket = folder_.file("host1/disks/disk1.nbd");
    Nbd nbd(nbd_create());
    EXPECT_EQ(nbd_connect_unix(nbd.get(), socket.c_str()), 0) << nbd_get_error();
    return nbd;
  }

  void write_somewhere(nbd_handle& nbd) {
    const std::uint64_t offset = random_() % (bytes_.size() - 30'000);
    const auto fresh = imagestore::random_bytes(1 + random_() % 30'000, random_());
    ASSERT_EQ(nbd_pwrite(&nbd, fresh.data(), fresh.size(), offset, 0), 0) << nbd_get_error();
    std::copy(fresh.begin(), fresh.end(), bytes_.begin() + static_cast<long>(offset));
  }

  /// A version of the disk's image is what the disk is now.
  void expect_version(std::uint64_t number) {
    const auto store = imagestore::open_store(pool_, imagestore::DirOrigin::Access::kRead);
    auto reader = imagestore::ImageReader::open(*store, "disk1", number);
    ASSERT_TRUE(reader) << reader.error().message();
    std::vector<std::byte> version(bytes_.size());
    ASSERT_TRUE((*reader)->read(0, version));
    ASSERT_EQ(version, bytes_);
  }

  const std::string pool_ = folder_.file("pool");
  SanitizerPreload preload_;
  std::vector<std::byte> bytes_ = imagestore::disk_bytes(500, 1);
  std::mt19937_64 random_{imagestore::test_seed()};
  std::unique_ptr<HostUnderTest> host_;
};

TEST_F(DiskFleetTest, APlacerThatIsKilledInMidCommitLosesNothingAcknowledged) {
  placer_.reset();
  const imagestore::Shared told;
  // Forked while there are no threads.
  const imagestore::Killer placers(told, [&] { commit_until_killed(told); });
  start_placer();
  host_->join();
  bus::DiskRequest create;
  create.set_name("disk1");
  create.mutable_create()->set_image("base");
  const auto made = ask(create);
  ASSERT_TRUE(made) << made.error().message();
  const auto nbd = connect();
  for (int write = 0; write < 10; ++write) write_somewhere(*nbd);
  const auto start = std::chrono::steady_clock::now();
  const auto first = ask(commit());
  ASSERT_TRUE(first) << first.error().message();
  // Kills fall into thrice what a commit takes, whatever the machine's load.
  const auto span = 3 * std::chrono::duration_cast<std::chrono::microseconds>(
                            std::chrono::steady_clock::now() - start);
  told->done = first->committed().number();
  placer_.reset();

  const std::uint64_t kills = imagestore::strikes(10);
  std::uint64_t acknowledged = 0;
  for (std::uint64_t i = 0; i < kills; ++i) {
    for (int write = 0; write < 10; ++write) write_somewhere(*nbd);
    const std::uint64_t before = told->done;
    const int status = placers.kill_after(random_() % 1'000 * span / 1'000);
    ASSERT_TRUE(imagestore::was_killed(status)) << "exit " << WEXITSTATUS(status);
    if (told->done == before) continue;
    ++acknowledged;
    expect_version(told->done);
    if (HasFatalFailure()) return;
  }

  start_placer();
  const auto last = ask(commit());
  ASSERT_TRUE(last) << last.error().message();
  EXPECT_GE(last->committed().number(), told->done);
  expect_version(last->committed().number());
  const auto store = imagestore::open_store(pool_);
  EXPECT_TRUE(imagestore::verify_store(*store, {})->clean());
  EXPECT_GT(acknowledged, 0U) << "no commit was acknowledged before a kill";
  std::cout << acknowledged << " commits acknowledged before one of " << kills << " kills\n";
}

}  // namespace
}  // namespace samepage
