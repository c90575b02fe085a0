// The promise under test: an importer that is killed at any moment (SIGKILL) loses no image whose
// import had returned, leaves no half image, and the next writer finds a store that verifies clean.

#include <atomic>
#include <chrono>
#include <csignal>
#include <thread>

#include <gtest/gtest.h>
#include <sched.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "imagestore/image_reader.h"
#include "imagestore/verifier.h"
#include "tests/imagestore/scratch.h"

namespace samepage::imagestore {
namespace {

constexpr int kRounds = 50;
constexpr std::size_t kDiskPages = 1500;

std::string image_name(std::uint64_t number) {
  return "image-" + std::to_string(number);
}

/// What parent and child both see.
struct Shared {
  std::atomic<bool> opened = false;  ///< The child has the store open.
  std::atomic<std::uint64_t> imported = 0;
  // About what an import of new pages takes, so that kills fall before, into and behind one.
  std::atomic<std::uint64_t> import_us = 0;
};

std::uint64_t microseconds_since(std::chrono::steady_clock::time_point start) {
  const auto time = std::chrono::steady_clock::now() - start;
  return static_cast<std::uint64_t>(
      std::chrono::duration_cast<std::chrono::microseconds>(time).count());
}

/// Imports one image after the other, counting those that returned, until it is killed.
[[noreturn]] void import_forever(const Scratch& scratch, std::uint64_t first, Shared& shared) {
  auto store = ImageStore::open({.folder = scratch / "store",
                                 .access = DirOrigin::Access::kWrite,
                                 .domain = {},
                                 .pack_bytes_max = 2U << 20U});
  if (!store) ::_exit(1);
  shared.opened.store(true);
  for (std::uint64_t number = first;; ++number) {
    const auto path = scratch / ("disk-" + std::to_string(number % 4));
    const auto start = std::chrono::steady_clock::now();
    if (!import_file(**store, path, image_name(number))) ::_exit(2);
    if (number == first) shared.import_us.store(microseconds_since(start));
    shared.imported.store(number + 1);
  }
}

TEST(CrashTest, AKilledImporterLosesNothingAcknowledged) {
  Scratch scratch;
  std::mt19937_64 random(test_seed());
  for (int disk = 0; disk < 4; ++disk) {
    auto bytes = disk_bytes(kDiskPages, static_cast<std::uint64_t>(disk));
    write_file(scratch / ("disk-" + std::to_string(disk)), bytes);
  }
  void* memory =
      ::mmap(nullptr, sizeof(Shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  ASSERT_NE(memory, MAP_FAILED);
  auto& shared = *new (memory) Shared();
  std::uint64_t adopted = 0;
  {
    const auto store = open_store(scratch / "store");
    const auto start = std::chrono::steady_clock::now();
    ASSERT_TRUE(import_file(*store, scratch / "disk-3", image_name(0)));
    shared.import_us.store(microseconds_since(start));
    shared.imported.store(1);
  }

  for (int round = 0; round < kRounds; ++round) {
    // The first import has new pages each time, or there would be nothing left to write.
    const std::uint64_t first = shared.imported.load();
    write_file(scratch / ("disk-" + std::to_string(first % 4)), disk_bytes(kDiskPages, random()));
    shared.opened.store(false);
    const pid_t child = ::fork();
    if (child == 0) import_forever(scratch, first, shared);
    while (!shared.opened.load() && ::waitpid(child, nullptr, WNOHANG) == 0) ::sched_yield();
    // A moment is what the test is about: this wait decides nothing, it only varies.
    std::this_thread::sleep_for(
        std::chrono::microseconds(random() % (2 * shared.import_us.load())));
    ::kill(child, SIGKILL);
    int status = 0;
    ASSERT_EQ(::waitpid(child, &status, 0), child);
    ASSERT_TRUE(WIFSIGNALED(status)) << "exit " << WEXITSTATUS(status);

    const auto store = open_store(scratch / "store");
    adopted += store->repairs().objects_adopted;
    const auto images = store->catalog().list().value();
    // One more may be durable than was counted: killed between the two.
    ASSERT_GE(images.size(), shared.imported.load());
    ASSERT_LE(images.size(), shared.imported.load() + 1);
    if (images.size() == first) shared.import_us.store(shared.import_us.load() * 5 / 4);
    shared.imported.store(images.size());
    const auto report = verify_store(*store, {}).value();
    EXPECT_TRUE(report.clean()) << report.descriptions.front();
    EXPECT_EQ(report.images, images.size());
  }
  std::cout << shared.imported.load() << " images imported, " << adopted << " objects adopted\n";
  EXPECT_GT(shared.imported.load(), 1U) << "no import returned before its kill";
  EXPECT_GT(adopted, 0U) << "no kill fell into an import: the test tests nothing";
}

}  // namespace
}  // namespace samepage::imagestore
