// The promises under test: what no version leads to goes after the grace time, and its room with
// it; what is in use, held, or relied on by a commit under way never does; killed at any moment the
// collector leaves a clean store.

#include "imagestore/garbage_collector.h"

#include <algorithm>
#include <csignal>

#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "imagestore/clone.h"
#include "imagestore/commit.h"
#include "imagestore/image_reader.h"
#include "imagestore/object_format.h"
#include "imagestore/verifier.h"
#include "tests/fakes/fake_clock.h"
#include "tests/imagestore/scratch.h"

namespace samepage::imagestore {
namespace {

using std::chrono_literals::operator""h;

class GarbageCollectorTest : public ::testing::Test {
 protected:
  GarbageCollectorTest() : store_(open_store(scratch_ / "store")) {}

  std::filesystem::path file(const std::string& name, std::span<const std::byte> bytes) {
    write_file(scratch_ / name, bytes);
    return scratch_ / name;
  }

  GarbageReport collect() {
    auto report = collect_garbage(*store_, {}, clock_);
    EXPECT_TRUE(report) << report.error().message();
    return *report;
  }

  std::chrono::sys_seconds now() {
    return std::chrono::floor<std::chrono::seconds>(clock_.today());
  }

  std::uint64_t room() const {
    std::uint64_t blocks = 0;
    for (const auto& entry : std::filesystem::directory_iterator(scratch_ / "store/packs")) {
      struct stat about {};
      if (!entry.path().filename().string().starts_with("pack-")) continue;
      EXPECT_EQ(::stat(entry.path().c_str(), &about), 0);
      blocks += static_cast<std::uint64_t>(about.st_blocks);
    }
    return blocks * 512;
  }

  std::vector<std::byte> read_back(const std::string& image) {
    auto reader = ImageReader::open(*store_, image).value();
    std::vector<std::byte> bytes(reader->size_bytes());
    const auto read = reader->read(0, bytes);
    EXPECT_TRUE(read) << read.error().message();
    return bytes;
  }

  void expect_clean(std::uint64_t reclaimable = 0) {
    const auto report = verify_store(*store_, {}).value();
    EXPECT_TRUE(report.clean()) << report.descriptions.front();
    EXPECT_EQ(report.reclaimable_objects, reclaimable);
  }

  Scratch scratch_;
  fakes::FakeClock clock_;
  std::unique_ptr<ImageStore> store_;
};

TEST_F(GarbageCollectorTest, RemovesWhatNothingLeadsToAfterTheGraceTime) {
  const auto kept = disk_bytes(800, 1);
  auto shared = kept;
  const auto own = random_bytes(1000 * kPageSize, 2);
  shared.insert(shared.end(), own.begin(), own.end());
  ASSERT_TRUE(import_file(*store_, file("kept", kept), "kept"));
  ASSERT_TRUE(import_file(*store_, file("gone", shared), "gone"));
  EXPECT_EQ(collect().buried_objects, 0U);
  const auto before = room();
  ASSERT_TRUE(store_->catalog().remove("gone", now()));

  const auto first = collect();
  EXPECT_GT(first.buried_bytes, 1000 * kPageSize);
  EXPECT_EQ(first.swept_objects, 0U);
  clock_.advance(23h);
  EXPECT_EQ(collect().waiting_objects, first.buried_objects);
  EXPECT_EQ(room(), before);
  clock_.advance(2h);
  const auto dry = collect_garbage(*store_, {.dry_run = true}, clock_).value();
  EXPECT_EQ(dry.swept_objects, first.buried_objects);
  EXPECT_EQ(collect().swept_bytes, first.buried_bytes);

  EXPECT_LT(room(), before - 900 * kPageSize);
  EXPECT_EQ(read_back("kept"), kept);
  expect_clean();
  EXPECT_EQ(import_file(*store_, scratch_ / "gone", "gone").value().new_pages, 1000U);
  EXPECT_EQ(read_back("gone"), shared);
  expect_clean();
}

TEST_F(GarbageCollectorTest, WhatLeadsToOthersGoesBeforeThem) {
  ASSERT_TRUE(import_file(*store_, file("gone", random_bytes(600 * kPageSize, 2)), "gone"));
  ASSERT_TRUE(store_->catalog().remove("gone", now()));
  ASSERT_GT(collect().buried_objects, 0U);
  std::vector<std::chrono::sys_seconds> leading;
  std::vector<std::chrono::sys_seconds> extents;
  ASSERT_TRUE(store_->origin().list([&](const StoredObject& object) -> Result<void> {
    const auto bytes = TRY(store_->origin().get(object.name));
    (leads_to_others(bytes) ? leading : extents).push_back(object.buried_at.value());
    return {};
  }));
  EXPECT_LT(std::ranges::max(leading), std::ranges::min(extents));

  // As a collector does that is killed when it has swept the first.
  clock_.advance(25h);
  std::vector<ObjectName> all;
  ASSERT_TRUE(store_->origin().list([&](const StoredObject& object) -> Result<void> {
    all.push_back(object.name);
    return {};
  }));
  const auto swept = store_->origin().sweep(all, std::ranges::max(leading)).value();
  EXPECT_EQ(swept.objects, leading.size());
  ASSERT_TRUE(import_file(*store_, scratch_ / "gone", "again"));
  EXPECT_EQ(collect().swept_objects, 0U);
  expect_clean();
}

TEST_F(GarbageCollectorTest, WholePacksGo) {
  store_ = ImageStore::open({.folder = scratch_ / "store",
                             .access = DirOrigin::Access::kWrite,
                             .pack_bytes_max = 1U << 20U})
               .value();
  ASSERT_TRUE(import_file(*store_, file("gone", random_bytes(2000 * kPageSize, 2)), "gone"));
  ASSERT_TRUE(import_file(*store_, file("kept", random_bytes(10 * kPageSize, 3)), "kept"));
  ASSERT_TRUE(std::filesystem::exists(scratch_ / "store/packs/pack-000001"));
  ASSERT_TRUE(store_->catalog().remove("gone", now()));
  collect();
  clock_.advance(25h);
  collect();
  EXPECT_FALSE(std::filesystem::exists(scratch_ / "store/packs/pack-000001"));
  EXPECT_LT(room(), 1U << 20U);
  store_ = open_store(scratch_ / "store");
  expect_clean();
  EXPECT_EQ(read_back("kept"), read_file(scratch_ / "kept"));
}

TEST_F(GarbageCollectorTest, WhatIsHeldStays) {
  ASSERT_TRUE(import_file(*store_, file("disk", disk_bytes(300, 1)), "disk"));
  const VersionId version = store_->catalog().find("disk").value().head.id;
  Catalog& catalog = store_->catalog();
  ASSERT_TRUE(catalog.hold(version, "vm web1", {.from = now(), .lasts = 100h}));
  const auto refused = catalog.remove("disk", now());
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code(), Errc::kUnavailable);
  EXPECT_NE(refused.error().message().find("vm web1"), std::string::npos);
  // Of two images with the version, one may go.
  ASSERT_TRUE(clone_image(*store_, {.source = "disk", .number = 0, .name = "clone"}, clock_));
  ASSERT_TRUE(catalog.remove("disk", now()));
  EXPECT_EQ(catalog.remove("clone", now()).error().code(), Errc::kUnavailable);
  clock_.advance(99h);
  ASSERT_TRUE(catalog.hold(version, "vm web1", {.from = now(), .lasts = 10h}));
  EXPECT_EQ(catalog.hold(VersionId{}, "vm", {.from = now(), .lasts = 1h}).error().code(),
            Errc::kNotFound);
  ASSERT_TRUE(catalog.release(version, "vm web1"));
  EXPECT_TRUE(catalog.remove("clone", now()));
}

TEST_F(GarbageCollectorTest, VersionsGoOneByOneButNotTheHead) {
  ASSERT_TRUE(import_file(*store_, file("disk", disk_bytes(300, 1)), "disk"));
  auto commit = Commit::begin(*store_, {.image = "disk",
                                        .base = store_->catalog().find("disk").value().head.id})
                    .value();
  ASSERT_TRUE(commit->put(0, random_bytes(200 * kPageSize, 4)));
  ASSERT_TRUE(commit->finish(clock_));
  commit.reset();
  Catalog& catalog = store_->catalog();
  EXPECT_EQ(catalog.remove_version("disk", 2, now()).error().code(), Errc::kInvalid);
  EXPECT_EQ(catalog.remove_version("disk", 7, now()).error().code(), Errc::kNotFound);
  EXPECT_EQ(catalog.remove("none", now()).error().code(), Errc::kNotFound);
  ASSERT_TRUE(catalog.remove_version("disk", 1, now()));
  EXPECT_GT(collect().buried_objects, 0U);
  clock_.advance(25h);
  EXPECT_GT(collect().swept_objects, 0U);
  expect_clean();
  EXPECT_EQ(catalog.find("disk").value().head.number, 2U);
}

TEST_F(GarbageCollectorTest, ACommitThatReliesOnWhatWasBuriedDigsItUpOrIsTold) {
  const auto bytes = random_bytes(64 * kPageSize, 4);
  ASSERT_TRUE(import_file(*store_, file("a", bytes), "a"));
  ASSERT_TRUE(import_file(*store_, file("b", disk_bytes(300, 1)), "b"));
  const VersionId base = store_->catalog().find("b").value().head.id;
  const auto other = open_store(scratch_ / "store");
  const auto begin = [&] {
    auto commit = Commit::begin(*other, {.image = "b", .base = base}).value();
    EXPECT_TRUE(commit->put(0, bytes));
    return commit;
  };
  auto late = begin();
  ASSERT_TRUE(store_->catalog().remove("a", now()));
  collect();
  clock_.advance(25h);
  collect();
  const auto told = late->finish(clock_);
  ASSERT_FALSE(told);
  EXPECT_EQ(told.error().code(), Errc::kUnavailable) << told.error().message();
  late.reset();
  EXPECT_TRUE(begin()->finish(clock_)) << "the page index has forgotten them";
  expect_clean();

  ASSERT_TRUE(store_->catalog().remove("b", now()));
  ASSERT_TRUE(import_file(*store_, file("c", disk_bytes(300, 1)), "c"));
  auto early =
      Commit::begin(*other, {.image = "c", .base = store_->catalog().find("c").value().head.id});
  ASSERT_TRUE((*early)->put(0, bytes));
  collect();
  clock_.advance(25h);
  ASSERT_TRUE((*early)->finish(clock_));
  collect();
  EXPECT_EQ(collect().dug_up_objects, 0U);
  expect_clean();
}

TEST_F(GarbageCollectorTest, RemovesNothingWhileAVersionIsDamaged) {
  ASSERT_TRUE(import_file(*store_, file("disk", disk_bytes(300, 1)), "disk"));
  ASSERT_TRUE(import_file(*store_, file("gone", random_bytes(1 << 20, 1)), "gone"));
  ASSERT_TRUE(store_->catalog().remove("gone", now()));
  auto pack = read_file(scratch_ / "store/packs/pack-000001");
  // The first image's manifest lies behind its extents and before the second's.
  const auto version = store_->catalog().find("disk").value().head.id;
  const auto at = std::search(pack.begin(), pack.end(), version.bytes.begin(), version.bytes.end());
  ASSERT_NE(at, pack.end());
  *at ^= std::byte{1};
  write_file(scratch_ / "store/packs/pack-000001", pack);
  const auto report = collect_garbage(*store_, {}, clock_);
  ASSERT_FALSE(report);
  EXPECT_EQ(report.error().code(), Errc::kCorrupt);
  EXPECT_EQ(collect_garbage(*store_, {.grace = std::chrono::minutes(1)}, clock_).error().code(),
            Errc::kInvalid);
}

TEST_F(GarbageCollectorTest, LeavesOtherSharingDomainsAlone) {
  const auto bytes = disk_bytes(300, 1);
  ASSERT_TRUE(import_file(*store_, file("ours", bytes), "ours"));
  SharingDomain tenant{.name = "tenant", .seed = {}, .key = {}};
  tenant.key.bytes[0] = std::byte{9};
  auto theirs =
      ImageStore::open(
          {.folder = scratch_ / "store", .access = DirOrigin::Access::kWrite, .domain = tenant})
          .value();
  ASSERT_TRUE(import_file(*theirs, scratch_ / "ours", "theirs"));
  ASSERT_TRUE(collect_garbage(*theirs, {}, clock_));
  clock_.advance(25h);
  const auto report = collect_garbage(*theirs, {}, clock_).value();
  EXPECT_GT(report.foreign_objects, 0U);
  EXPECT_EQ(report.swept_objects, 0U);
  EXPECT_EQ(read_back("ours"), bytes);
}

}  // namespace
}  // namespace samepage::imagestore
