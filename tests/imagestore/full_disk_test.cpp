// The promises under test: a write that does not fit is refused and named as such, what was
// acknowledged stays, reads go on, and everything goes on when there is room again: for a disk's
// overlay, the mirror of what was read, and the store itself.

#include <filesystem>

#include <gtest/gtest.h>

#include "imagestore/commit.h"
#include "imagestore/disk.h"
#include "imagestore/image_reader.h"
#include "imagestore/verifier.h"
#include "tests/imagestore/scratch.h"
#include "tests/imagestore/small_disk.h"

namespace samepage::imagestore {
namespace {

constexpr std::size_t kPages = 600;
constexpr std::uint64_t kMiB = 1U << 20U;

class FullDiskTest : public ::testing::Test {
 protected:
  void import_to(const std::string& folder) {
    write_file(scratch_ / "image", bytes_);
    const auto store = open_store(scratch_ / folder);
    const auto imported = import_file(*store, scratch_ / "image", "base");
    ASSERT_TRUE(imported) << imported.error().message();
    base_ = imported->version.id;
  }

  std::unique_ptr<Disk> open_disk(const std::string& folder, const std::string& mirrors) {
    Disk::Options options;
    options.folder = scratch_ / folder;
    options.mirrors = scratch_ / mirrors;
    options.source.store.folder = scratch_ / "store";
    options.image = "base";
    options.traces = false;
    auto disk = Disk::open(options);
    EXPECT_TRUE(disk) << disk.error().message();
    return *std::move(disk);
  }

  static std::vector<std::byte> read_all(Disk& disk) {
    std::vector<std::byte> bytes(disk.size_bytes());
    const auto read = disk.read(0, bytes);
    EXPECT_TRUE(read) << read.error().message();
    return bytes;
  }

  Scratch scratch_;
  std::vector<std::byte> bytes_ = disk_bytes(kPages, 3);
  VersionId base_;
};

TEST_F(FullDiskTest, AWriteThatDoesNotFitIsRefusedAndTheDiskGoesOn) {
  const SmallDisk small(scratch_ / "small", kMiB);
  import_to("store");
  ASSERT_TRUE(
      Overlay::create(scratch_ / "small/disk", {.base = base_, .size_bytes = bytes_.size()}));
  auto disk = open_disk("small/disk", "mirrors");
  std::uint64_t refused_at = 0;
  for (std::uint64_t page = 0; page < kPages && refused_at == 0; page += 5) {
    const auto fresh = random_bytes(5 * kPageSize, page);
    const auto written = disk->write(page * kPageSize, fresh);
    if (written) {
      std::ranges::copy(fresh, bytes_.begin() + static_cast<long>(page * kPageSize));
      continue;
    }
    EXPECT_EQ(written.error().code(), Errc::kIo);
    EXPECT_TRUE(disk->is_full()) << "which QEMU is told as ENOSPC";
    refused_at = page;
  }
  ASSERT_GT(refused_at, 0U);
  // What was not acknowledged may be there or not, page by page; it is written again below.
  const auto after = read_all(*disk);
  EXPECT_TRUE(std::equal(after.begin(), after.begin() + static_cast<long>(refused_at * kPageSize),
                         bytes_.begin()));
  const auto behind = static_cast<long>((refused_at + 5) * kPageSize);
  EXPECT_TRUE(std::equal(after.begin() + behind, after.end(), bytes_.begin() + behind));

  ASSERT_TRUE(small.resize(16 * kMiB));
  const auto again = random_bytes(5 * kPageSize, 1);
  ASSERT_TRUE(disk->write(refused_at * kPageSize, again));
  std::ranges::copy(again, bytes_.begin() + static_cast<long>(refused_at * kPageSize));
  EXPECT_FALSE(disk->is_full());
  ASSERT_TRUE(disk->flush());
  disk.reset();
  EXPECT_EQ(read_all(*open_disk("small/disk", "mirrors")), bytes_);
}

TEST_F(FullDiskTest, AMirrorThatIsFullCostsFetchesAndNoErrors) {
  const SmallDisk small(scratch_ / "small", 256U << 10U);
  import_to("store");
  ASSERT_TRUE(Overlay::create(scratch_ / "disk", {.base = base_, .size_bytes = bytes_.size()}));
  const auto disk = open_disk("disk", "small/mirrors");

  EXPECT_EQ(read_all(*disk), bytes_);
  ASSERT_TRUE(Overlay::create(scratch_ / "other", {.base = base_, .size_bytes = bytes_.size()}));
  const auto other = open_disk("other", "small/mirrors");
  EXPECT_EQ(read_all(*other), bytes_);
  EXPECT_GT(other->status().fetched.demand_fetches, 0U) << "what did not fit came again";
}

TEST_F(FullDiskTest, AStoreThatIsFullLosesNothingThatItAcknowledged) {
  const SmallDisk small(scratch_ / "store", 8 * kMiB);
  import_to("store");
  std::uint64_t head = 1;
  const auto commit = [&](std::uint64_t number) -> Result<void> {
    const auto store =
        TRY(ImageStore::open({.folder = scratch_ / "store", .access = DirOrigin::Access::kWrite}));
    const auto base = TRY(store->catalog().find("base")).head.id;
    const auto begun = TRY(Commit::begin(*store, {.image = "base", .base = base}));
    TRY(begun->put(100, random_bytes(200 * kPageSize, number)));
    TRY(begun->finish(SystemClock()));
    return {};
  };
  Result<void> refused;
  while (refused && head < 100) {
    refused = commit(head + 1);
    if (refused) ++head;
  }
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code(), Errc::kIo) << refused.error().message();
  EXPECT_GT(head, 2U);

  ASSERT_TRUE(small.resize(64 * kMiB));
  {
    const auto store = open_store(scratch_ / "store");
    EXPECT_EQ(store->catalog().find("base")->head.number, head);
    const auto report = verify_store(*store, {}).value();
    EXPECT_TRUE(report.clean()) << report.descriptions.front();
    auto reader = ImageReader::open(*store, "base").value();
    std::vector<std::byte> got(200 * kPageSize);
    ASSERT_TRUE(reader->read(100 * kPageSize, got));
    EXPECT_EQ(got, random_bytes(200 * kPageSize, head));
  }
  ASSERT_TRUE(commit(head + 1));
  EXPECT_EQ(open_store(scratch_ / "store")->catalog().find("base")->head.number, head + 1);
}

}  // namespace
}  // namespace samepage::imagestore
