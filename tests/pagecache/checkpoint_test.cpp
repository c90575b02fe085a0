// The promise under test: a guest that left is found page for page, within the budget, and what
// lies on the disk is nobody's to read.

#include <algorithm>
#include <array>
#include <filesystem>

#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include "pagecache/checkpoint_store.h"
#include "tests/core/temporary_folder.h"
#include "tests/fakes/fake_guest_memory.h"

namespace samepage::pagecache {
namespace {

using fakes::FakeGuestMemory;
using Page = FakeGuestMemory::Page;
using Which = CheckpointStore::Which;

class CheckpointTest : public ::testing::Test {
 protected:
  static SharingDomain make_domain() {
    SharingDomain domain;
    domain.seed.value = 5;
    domain.key.bytes[3] = std::byte{9};
    return domain;
  }

  Result<std::shared_ptr<const Checkpoint>> take(FakeGuestMemory& memory,
                                                 std::uint64_t bytes_max = UINT64_MAX / 2) {
    return Checkpoint::take(memory, {.folder = folder_.file("checkpoints"),
                                     .bytes_max = bytes_max,
                                     .disk_free_min = 0,
                                     .stop = {},
                                     .seed = domain_.seed});
  }

  static VmInfo vm(const std::string& name) {
    VmInfo info;
    info.id = {"uuid-" + name};
    info.name = name;
    return info;
  }

  bool finds(const CheckpointStore& store, std::uint64_t content, Which which = Which::kOfOthers) {
    const auto cache = PageCache::create({}, domain_).value();
    store.add_to(*cache, domain_, {"uuid-web"}, which);
    const Page wanted = FakeGuestMemory::page_of(content);
    Page got{};
    const auto found =
        cache->find(digest_page(wanted, domain_.key), hash_page(wanted, domain_.seed), got);
    EXPECT_TRUE(!found || got == wanted);
    return static_cast<bool>(found);
  }

  TemporaryFolder folder_;
  const SharingDomain domain_ = make_domain();
};

TEST_F(CheckpointTest, HoldsThePagesUnderTheirNumbersButForZeros) {
  FakeGuestMemory memory(1'000);
  memory.put(0, 11);
  memory.put(1, 0);
  memory.put(700, 12);
  const auto checkpoint = take(memory).value();

  ASSERT_EQ(checkpoint->pages().size(), 2U);
  EXPECT_EQ(checkpoint->pages()[1].page, 700U);
  EXPECT_EQ(checkpoint->pages()[1].hash, hash_page(FakeGuestMemory::page_of(12), domain_.seed));
  Page page{};
  ASSERT_TRUE(checkpoint->read(700, page));
  EXPECT_EQ(page, FakeGuestMemory::page_of(12));
  EXPECT_EQ(checkpoint->read(999, page).error().code(), Errc::kNotFound);
}

TEST_F(CheckpointTest, LeavesNoNameAndNoPlaintextOnTheDisk) {
  FakeGuestMemory memory(100);
  for (std::uint64_t page = 0; page < 100; ++page) memory.put(page, 0x5A5A5A5A00 + page);
  const auto checkpoint = take(memory).value();

  EXPECT_TRUE(std::filesystem::is_empty(folder_.file("checkpoints")));
  // The only way to the file is through this process: look at its bytes as the disk has them.
  bool seen = false;
  for (int fd = 3; fd < 256; ++fd) {
    struct stat status {};
    if (::fstat(fd, &status) != 0 || status.st_nlink != 0 || !S_ISREG(status.st_mode)) continue;
    Page page{};
    if (::pread(fd, page.data(), page.size(), 7 * kPageSize) != kPageSize) continue;
    seen = true;
    EXPECT_NE(page, FakeGuestMemory::page_of(0x5A5A5A5A07));
    EXPECT_EQ(std::search_n(page.begin(), page.end(), 3, std::byte{0x5A}), page.end());
  }
  EXPECT_TRUE(seen);
}

TEST_F(CheckpointTest, EqualPagesLookDifferentOnTheDisk) {
  const auto cipher = PageCipher::create().value();
  const Page page = FakeGuestMemory::page_of(3);
  Page one{};
  Page other{};
  ASSERT_TRUE(cipher->encrypt(1, page, one));
  ASSERT_TRUE(cipher->encrypt(2, page, other));
  EXPECT_NE(one, other);
  ASSERT_TRUE(cipher->decrypt(1, one));
  EXPECT_EQ(one, page);
}

TEST_F(CheckpointTest, EndsEarlyAtTheBoundAndWhenTheGuestEnds) {
  FakeGuestMemory memory(2'000);
  for (std::uint64_t page = 0; page < 2'000; ++page) memory.put(page, page + 1);
  EXPECT_EQ(take(memory, 600 * kPageSize).value()->pages().size(), 512U);

  memory.reads_left = 3;
  const auto cut = take(memory);
  ASSERT_TRUE(cut);
  EXPECT_GT((*cut)->pages().size(), 0U);
  EXPECT_LT((*cut)->pages().size(), 2'000U);
}

TEST_F(CheckpointTest, AFolderThatCannotBeWrittenIsAnError) {
  FakeGuestMemory memory(10);
  memory.put(0, 1);
  const auto taken = Checkpoint::take(
      memory,
      {.folder = "/proc/none", .bytes_max = 1U << 20U, .disk_free_min = 0, .stop = {}, .seed = {}});
  EXPECT_EQ(taken.error().code(), Errc::kIo);
}

TEST_F(CheckpointTest, ADiskWithoutRoomIsLeftAlone) {
  FakeGuestMemory memory(10);
  memory.put(0, 1);
  const auto taken = Checkpoint::take(memory, {.folder = folder_.file("checkpoints"),
                                               .bytes_max = 1U << 20U,
                                               .disk_free_min = UINT64_MAX / 2,
                                               .stop = {},
                                               .seed = {}});
  ASSERT_TRUE(taken);
  EXPECT_TRUE((*taken)->pages().empty());
}

TEST_F(CheckpointTest, TheStoreKeepsTheNewestOfEachVmWithinItsBudget) {
  CheckpointStore store({.folder = folder_.file("checkpoints"), .bytes_max = 3 * kPageSize});
  FakeGuestMemory memory(10);
  memory.put(0, 1);
  memory.put(1, 2);
  store.keep(vm("db"), take(memory).value());
  memory.put(1, 3);
  store.keep(vm("db"), take(memory).value());
  EXPECT_TRUE(finds(store, 3));
  EXPECT_FALSE(finds(store, 2));

  memory.put(0, 7);
  store.keep(vm("web"), take(memory).value());
  EXPECT_EQ(store.bytes(), 2 * kPageSize) << "the older one gave way";
  EXPECT_TRUE(finds(store, 7, Which::kOfVm));
  EXPECT_FALSE(finds(store, 7, Which::kOfOthers));
  store.drop({"uuid-web"});
  EXPECT_EQ(store.bytes(), 0U);
}

TEST_F(CheckpointTest, AnotherSharingDomainFindsNothing) {
  CheckpointStore store({.folder = folder_.file("checkpoints"), .bytes_max = 1U << 20U});
  FakeGuestMemory memory(10);
  memory.put(0, 1);
  VmInfo foreign = vm("db");
  foreign.sharing_domain = "tenant7";
  store.keep(foreign, take(memory).value());
  EXPECT_FALSE(finds(store, 1));
}

}  // namespace
}  // namespace samepage::pagecache
