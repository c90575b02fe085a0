// The promise under test: a guest that left is found page for page, within the budget, and what
// lies on the disk is nobody's to read.

#include <algorithm>
#include <array>
#include <csignal>
#include <filesystem>
#include <utility>
#include <vector>

#include <gtest/gtest.h>
#include <sys/resource.h>
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

  std::unique_ptr<CheckpointWriter> writer(std::uint64_t bytes_max = UINT64_MAX / 2,
                                           std::uint64_t disk_free_min = 0) {
    return CheckpointWriter::create({.folder = folder_.file("checkpoints"),
                                     .bytes_max = bytes_max,
                                     .disk_free_min = disk_free_min,
                                     .seed = domain_.seed})
        .value();
  }

  /// A checkpoint of these pages with these contents.
  std::shared_ptr<const Checkpoint> take(
      const std::vector<std::pair<std::uint64_t, std::uint64_t>>& pages) {
    const auto taker = writer();
    for (const auto& [number, content] : pages) {
      taker->put(number, FakeGuestMemory::page_of(content));
    }
    return taker->finish();
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
  const auto checkpoint = take({{700, 12}, {0, 11}, {1, 0}});

  ASSERT_EQ(checkpoint->pages().size(), 2U);
  EXPECT_EQ(checkpoint->pages()[1].page, 700U);
  EXPECT_EQ(checkpoint->pages()[1].hash, hash_page(FakeGuestMemory::page_of(12), domain_.seed));
  Page page{};
  ASSERT_TRUE(checkpoint->read(700, page));
  EXPECT_EQ(page, FakeGuestMemory::page_of(12));
  EXPECT_EQ(checkpoint->read(999, page).error().code(), Errc::kNotFound);
}

TEST_F(CheckpointTest, TheLastVersionOfAPageCounts) {
  const auto taker = writer();
  for (std::uint64_t pass = 1; pass <= 9; ++pass) {
    for (std::uint64_t number = 0; number < 1'000; ++number) {
      taker->put(number, FakeGuestMemory::page_of(pass * 1'000 + number));
    }
  }
  const auto checkpoint = taker->finish();

  ASSERT_EQ(checkpoint->pages().size(), 1'000U);
  for (std::uint64_t number = 0; number < 1'000; ++number) {
    const Page newest = FakeGuestMemory::page_of(9'000 + number);
    EXPECT_EQ(checkpoint->pages()[number].page, number);
    EXPECT_EQ(checkpoint->pages()[number].hash, hash_page(newest, domain_.seed));
    Page page{};
    ASSERT_TRUE(checkpoint->read(number, page));
    EXPECT_EQ(page, newest);
  }
}

TEST_F(CheckpointTest, LeavesNoNameAndNoPlaintextOnTheDisk) {
  std::vector<std::pair<std::uint64_t, std::uint64_t>> pages;
  for (std::uint64_t page = 0; page < 100; ++page) pages.emplace_back(page, 0x5A5A5A5A00 + page);
  const auto checkpoint = take(pages);

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

TEST_F(CheckpointTest, EndsAtTheBound) {
  const auto taker = writer(600 * kPageSize);
  for (std::uint64_t page = 0; page < 2'000; ++page) {
    taker->put(page, FakeGuestMemory::page_of(page + 1));
  }
  EXPECT_EQ(taker->finish()->pages().size(), 512U);
}

TEST_F(CheckpointTest, NewVersionsOfPagesDoNotCountAgainstTheBound) {
  const auto taker = writer(600 * kPageSize);
  for (std::uint64_t i = 0; i < 2'000; ++i) {
    taker->put(i % 100, FakeGuestMemory::page_of(i + 1));
  }
  EXPECT_EQ(taker->finish()->pages().size(), 100U);
}

TEST_F(CheckpointTest, AFolderThatCannotBeWrittenIsAnError) {
  const auto made = CheckpointWriter::create(
      {.folder = "/proc/none", .bytes_max = 1U << 20U, .disk_free_min = 0, .seed = {}});
  EXPECT_EQ(made.error().code(), Errc::kIo);
}

TEST_F(CheckpointTest, ADiskWithoutRoomIsLeftAlone) {
  const auto taker = writer(1U << 20U, UINT64_MAX / 2);
  taker->put(0, FakeGuestMemory::page_of(1));
  EXPECT_TRUE(taker->finish()->pages().empty());
}

// A file that may not grow stands for a disk that has become full.
TEST_F(CheckpointTest, WhatADiskThatFillsUpHasTakenIsKept) {
  rlimit before{};
  ASSERT_EQ(::getrlimit(RLIMIT_FSIZE, &before), 0);
  const auto ignored = std::signal(SIGXFSZ, SIG_IGN);
  const rlimit limit{.rlim_cur = 300 * kPageSize + 17, .rlim_max = before.rlim_max};
  ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &limit), 0);
  const auto taker = writer();
  for (std::uint64_t page = 0; page < 1'000; ++page) {
    taker->put(page, FakeGuestMemory::page_of(page + 1));
  }
  const auto checkpoint = taker->finish();
  ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &before), 0);
  std::signal(SIGXFSZ, ignored);

  ASSERT_EQ(checkpoint->pages().size(), 300U);
  Page page{};
  ASSERT_TRUE(checkpoint->read(299, page));
  EXPECT_EQ(page, FakeGuestMemory::page_of(300));
}

TEST_F(CheckpointTest, TheStoreKeepsTheNewestOfEachVmWithinItsBudget) {
  CheckpointStore store({.folder = folder_.file("checkpoints"), .bytes_max = 3 * kPageSize});
  store.keep(vm("db"), take({{0, 1}, {1, 2}}));
  store.keep(vm("db"), take({{0, 1}, {1, 3}}));
  EXPECT_TRUE(finds(store, 3));
  EXPECT_FALSE(finds(store, 2));

  store.keep(vm("web"), take({{0, 7}, {1, 3}}));
  EXPECT_EQ(store.bytes(), 2 * kPageSize) << "the older one gave way";
  EXPECT_TRUE(finds(store, 7, Which::kOfVm));
  EXPECT_FALSE(finds(store, 7, Which::kOfOthers));
  store.drop({"uuid-web"});
  EXPECT_EQ(store.bytes(), 0U);
}

TEST_F(CheckpointTest, AnotherSharingDomainFindsNothing) {
  CheckpointStore store({.folder = folder_.file("checkpoints"), .bytes_max = 1U << 20U});
  VmInfo foreign = vm("db");
  foreign.sharing_domain = "tenant7";
  store.keep(foreign, take({{0, 1}}));
  EXPECT_FALSE(finds(store, 1));
}

}  // namespace
}  // namespace samepage::pagecache
