// The promise under test: a flipped bit anywhere in a pack is found by verifying, and the page that
// it hit is never served. Whatever else is asked for is.

#include <gtest/gtest.h>

#include "imagestore/image_reader.h"
#include "imagestore/verifier.h"
#include "tests/imagestore/scratch.h"

namespace samepage::imagestore {
namespace {

using Access = DirOrigin::Access;

class DamageTest : public ::testing::Test {
 protected:
  DamageTest() {
    write_file(scratch_ / "disk", disk_);
    const auto store = open_store(scratch_ / "store");
    EXPECT_TRUE(import_file(*store, scratch_ / "disk", "disk"));
    pack_ = read_file(pack_path_);
  }

  /// Reads every page on its own; returns how many were refused. None may be wrong.
  std::size_t read_pages() {
    const auto store = open_store(scratch_ / "store", Access::kRead);
    auto reader = ImageReader::open(*store, "disk");
    if (!reader) {
      EXPECT_EQ(reader.error().code(), Errc::kCorrupt);
      return disk_.size() / kPageSize;
    }
    std::size_t refused = 0;
    std::array<std::byte, kPageSize> page{};
    for (std::size_t at = 0; at < disk_.size(); at += kPageSize) {
      const auto read = (*reader)->read(at, page);
      if (read) {
        EXPECT_TRUE(std::ranges::equal(page, std::span(disk_).subspan(at, kPageSize)));
        continue;
      }
      ++refused;
      EXPECT_EQ(read.error().code(), Errc::kCorrupt);
      EXPECT_NE(read.error().message().find("image disk, page "), std::string::npos);
      EXPECT_NE(read.error().message().find("pack 1"), std::string::npos) << read.error().message();
    }
    return refused;
  }

  Scratch scratch_;
  std::vector<std::byte> disk_ = disk_bytes(300, 11);
  std::filesystem::path pack_path_ = scratch_ / "store/packs/pack-000001";
  std::vector<std::byte> pack_;
};

TEST_F(DamageTest, FlippedBitsAreFoundByVerifyAndNeverServed) {
  std::mt19937_64 random(test_seed());
  ASSERT_EQ(read_pages(), 0U);
  std::size_t refused = 0;
  for (int round = 0; round < 60; ++round) {
    auto bad = pack_;
    // Behind the file's header, whose damage hits everything and is another test's.
    const std::size_t at = 16 + random() % (bad.size() - 16);
    bad[at] ^= static_cast<std::byte>(1U << (random() % 8));
    write_file(pack_path_, bad);

    refused += read_pages();

    const auto store = open_store(scratch_ / "store", Access::kRead);
    const auto report = verify_store(*store, {}).value();
    EXPECT_FALSE(report.clean()) << "byte " << at;
    ASSERT_FALSE(report.descriptions.empty());
  }
  EXPECT_GT(refused, 0U);
}

TEST_F(DamageTest, ARecordWithAMatchingChecksumStillHasToMatchItsDigests) {
  // The origin's checksum is no proof: an object put under another's name is refused further up.
  {
    const auto store = open_store(scratch_ / "store");
    const Image image = store->catalog().find("disk").value();
    const auto ref =
        Manifest::open(store->origin(), store->keys(), image.head.id).value().find(299).value();
    auto extent = decode_extent(store->origin().get(ref->place.extent).value(), store->keys());
    extent->pages[0] ^= std::byte{1};
    const auto forged = encode_extent(*extent, store->keys());
    Scratch other;
    auto origin = DirOrigin::open({.folder = other.folder(), .access = Access::kWrite}).value();
    ASSERT_TRUE(store->origin().list([&](const StoredObject& object) -> Result<void> {
      const auto bytes = store->origin().get(object.name).value();
      return origin->put(object.name, object.name == forged.name ? forged.bytes : bytes);
    }));
    ASSERT_TRUE(origin->sync());
    origin.reset();
    std::filesystem::remove_all(scratch_ / "forged");
    std::filesystem::copy(other.folder(), scratch_ / "forged");
  }
  std::filesystem::remove_all(scratch_ / "store/packs");
  std::filesystem::rename(scratch_ / "forged", scratch_ / "store/packs");

  EXPECT_GE(read_pages(), 1U);
  const auto store = open_store(scratch_ / "store", Access::kRead);
  const auto report = verify_store(*store, {}).value();
  EXPECT_GE(report.problems, 2U) << "the page of the image, and the object";
}

TEST_F(DamageTest, AMissingPackIsFoundAndEveryPageOfItRefused) {
  std::filesystem::remove(pack_path_);
  EXPECT_EQ(read_pages(), 300U);
  const auto store = open_store(scratch_ / "store", Access::kRead);
  EXPECT_FALSE(verify_store(*store, {}).value().clean());
}

TEST_F(DamageTest, VerifyingOneImageSaysNothingOfOthers) {
  const auto store = open_store(scratch_ / "store");
  write_file(scratch_ / "other", random_bytes(100'000, 77));
  ASSERT_TRUE(import_file(*store, scratch_ / "other", "other"));
  const auto report = verify_store(*store, {.image = "other"}).value();
  EXPECT_EQ(report.images, 1U);
  EXPECT_EQ(report.pages, 25U);
  EXPECT_EQ(report.objects, 0U);
  EXPECT_EQ(verify_store(*store, {.image = "none"}).error().code(), Errc::kNotFound);
}

TEST_F(DamageTest, VerifyingCanBeCancelled) {
  write_file(scratch_ / "big", random_bytes(40U << 20U, 7));
  const auto store = open_store(scratch_ / "store");
  ASSERT_TRUE(import_file(*store, scratch_ / "big", "big"));
  const auto report =
      verify_store(*store, {.on_progress = [](const ImportProgress&) { return false; }});
  ASSERT_FALSE(report);
  EXPECT_EQ(report.error().code(), Errc::kUnavailable);
}

}  // namespace
}  // namespace samepage::imagestore
