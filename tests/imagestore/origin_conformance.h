#pragma once

// The promises of imagestore/origin.h, and of a whole store on top of it, for whatever origin: each
// kind instantiates both suites with its StorePlaceKind.

#include <algorithm>
#include <map>
#include <set>
#include <thread>

#include <gtest/gtest.h>

#include "imagestore/clone.h"
#include "imagestore/commit.h"
#include "imagestore/garbage_collector.h"
#include "imagestore/image_reader.h"
#include "imagestore/manifest.h"
#include "imagestore/verifier.h"
#include "tests/fakes/fake_clock.h"
#include "tests/imagestore/store_place.h"

namespace samepage::imagestore {

inline ObjectName numbered_name(std::uint64_t number) {
  StreamMac mac(DigestKey{});
  mac.update(std::as_bytes(std::span(&number, 1)));
  return mac.current();
}

class OriginConformance : public ::testing::TestWithParam<StorePlaceKind> {
 protected:
  using Access = DirOrigin::Access;

  std::unique_ptr<Origin> open(Access access = Access::kWrite) {
    auto origin = place_->open_origin(access);
    if (!origin) std::cerr << origin.error().message() << "\n";
    return std::move(origin).value();
  }

  static std::vector<std::byte> bytes_of(std::uint64_t number) {
    return random_bytes(1 + number * 97 % 5'000, number);
  }
  static void put(Origin& origin, std::uint64_t first, std::uint64_t last) {
    for (std::uint64_t number = first; number <= last; ++number) {
      const auto done = origin.put(numbered_name(number), bytes_of(number));
      ASSERT_TRUE(done) << done.error().message();
    }
  }
  static void expect_holds(Origin& origin, std::uint64_t first, std::uint64_t last) {
    for (std::uint64_t number = first; number <= last; ++number) {
      const auto bytes = origin.get(numbered_name(number));
      ASSERT_TRUE(bytes) << number << ": " << bytes.error().message();
      ASSERT_EQ(*bytes, bytes_of(number));
    }
  }
  static std::map<ObjectName, StoredObject> listed(Origin& origin) {
    std::map<ObjectName, StoredObject> all;
    EXPECT_TRUE(origin.list([&](const StoredObject& object) -> Result<void> {
      EXPECT_TRUE(all.emplace(object.name, object).second) << "listed twice";
      return {};
    }));
    return all;
  }
  static std::chrono::sys_seconds at(std::int64_t seconds) {
    return std::chrono::sys_seconds(std::chrono::seconds(1'800'000'000 + seconds));
  }

  std::unique_ptr<StorePlace> place_ = GetParam().make();
};

TEST_P(OriginConformance, HandsOutWhatWasPut) {
  {
    auto origin = open();
    put(*origin, 0, 300);
    expect_holds(*origin, 0, 300);
    ASSERT_TRUE(origin->sync());
  }
  const auto origin = open(Access::kRead);
  expect_holds(*origin, 0, 300);
  EXPECT_TRUE(origin->contains(numbered_name(5)).value());
  EXPECT_FALSE(origin->contains(numbered_name(500)).value());
  EXPECT_EQ(origin->get(numbered_name(500)).error().code(), Errc::kNotFound);
  EXPECT_NE(origin->place(numbered_name(5)), origin->place(numbered_name(500)));
  const auto all = listed(*origin);
  EXPECT_EQ(all.size(), 301U);
  EXPECT_GE(all.at(numbered_name(7)).stored_bytes, bytes_of(7).size());
  EXPECT_FALSE(all.at(numbered_name(7)).buried_at);
}

TEST_P(OriginConformance, TakesTheLargestObjectAndNoLarger) {
  auto origin = open();
  const auto largest = random_bytes(kObjectBytesMax, 1);
  ASSERT_TRUE(origin->put(numbered_name(1), largest));
  EXPECT_EQ(origin->get(numbered_name(1)).value(), largest);
  EXPECT_EQ(origin->put(numbered_name(2), random_bytes(kObjectBytesMax + 1, 1)).error().code(),
            Errc::kInvalid);
}

TEST_P(OriginConformance, RefusesToWriteThroughAReader) {
  put(*open(), 1, 1);
  auto reader = open(Access::kRead);
  EXPECT_EQ(reader->put(numbered_name(1), bytes_of(1)).error().code(), Errc::kInvalid);
  EXPECT_EQ(reader->keep(numbered_name(1)).error().code(), Errc::kInvalid);
  EXPECT_EQ(reader->sweep({}, {}).error().code(), Errc::kInvalid);
}

TEST_P(OriginConformance, ListsWhatWasPutTwiceOnce) {
  auto origin = open();
  put(*origin, 1, 20);
  put(*origin, 10, 30);
  ASSERT_TRUE(origin->sync());
  put(*origin, 20, 40);
  ASSERT_TRUE(origin->sync());
  EXPECT_EQ(listed(*origin).size(), 40U);
  expect_holds(*origin, 1, 40);
}

TEST_P(OriginConformance, DiscardTakesBackOnlyWhatWasNotSynced) {
  auto origin = open();
  put(*origin, 1, 60);
  ASSERT_TRUE(origin->sync());
  put(*origin, 50, 200);
  ASSERT_TRUE(origin->discard());
  EXPECT_EQ(listed(*origin).size(), 60U);
  expect_holds(*origin, 1, 60);
  put(*origin, 61, 200);
  ASSERT_TRUE(origin->sync());
  expect_holds(*origin, 1, 200);
}

TEST_P(OriginConformance, WritersWriteAtTheSameTime) {
  auto first = open();
  auto second = open();
  put(*first, 1, 40);
  put(*second, 30, 60);
  ASSERT_TRUE(second->sync());
  ASSERT_TRUE(first->discard());
  expect_holds(*second, 30, 60);
  put(*first, 61, 70);
  put(*second, 65, 80);
  ASSERT_TRUE(first->sync());
  ASSERT_TRUE(second->discard());
  expect_holds(*first, 30, 70);
  EXPECT_EQ(listed(*first).size(), 41U);
}

TEST_P(OriginConformance, WhatOneWriterSyncsNoOtherTakesBack) {
  constexpr std::uint64_t kRounds = 30;
  constexpr std::uint64_t kObjects = 12;
  std::vector<std::set<std::uint64_t>> synced(2);
  const auto write = [&](std::size_t writer) {
    auto origin = open();
    std::mt19937_64 random(writer);
    for (std::uint64_t round = 0; round < kRounds; ++round) {
      const std::uint64_t begin = round * kObjects;
      put(*origin, begin, begin + kObjects - 1);
      if (random() % 2 == 0) {
        ASSERT_TRUE(origin->discard());
        continue;
      }
      const auto done = origin->sync();
      if (!done) {
        // The other took back what this one had found.
        ASSERT_EQ(done.error().code(), Errc::kUnavailable) << done.error().message();
        ASSERT_TRUE(origin->discard());
        continue;
      }
      for (std::uint64_t i = 0; i < kObjects; ++i) synced[writer].insert(begin + i);
    }
  };
  {
    const std::jthread one(write, 0);
    const std::jthread other(write, 1);
  }
  const auto origin = open(Access::kRead);
  EXPECT_FALSE(synced[0].empty());
  for (const auto& numbers : synced) {
    for (const std::uint64_t number : numbers) expect_holds(*origin, number, number);
  }
}

TEST_P(OriginConformance, BuriedObjectsAreServedUntilTheyAreSwept) {
  auto origin = open();
  put(*origin, 1, 10);
  ASSERT_TRUE(origin->sync());
  const std::vector<ObjectName> buried{numbered_name(1), numbered_name(2), numbered_name(3),
                                       numbered_name(99)};
  ASSERT_TRUE(origin->bury(buried, at(100)));
  ASSERT_TRUE(origin->bury(buried, at(200))) << "and keep their time";
  EXPECT_EQ(listed(*origin).at(numbered_name(2)).buried_at, at(100));
  expect_holds(*origin, 1, 10);

  EXPECT_EQ(origin->sweep(buried, at(99)).value().objects, 0U);
  ASSERT_TRUE(origin->keep(numbered_name(1)));
  put(*origin, 2, 2);
  ASSERT_TRUE(origin->sync()) << "which digs up what was kept, and what was put again";
  const auto swept = origin->sweep(buried, at(100)).value();
  EXPECT_EQ(swept.objects, 1U);
  EXPECT_GE(swept.bytes, bytes_of(3).size());
  EXPECT_FALSE(origin->contains(numbered_name(3)).value());
  expect_holds(*origin, 1, 2);
  EXPECT_FALSE(listed(*origin).at(numbered_name(1)).buried_at);
  const std::vector<ObjectName> never_buried{numbered_name(4)};
  EXPECT_EQ(origin->sweep(never_buried, at(1'000'000)).value().objects, 0U);
  EXPECT_EQ(listed(*origin).size(), 9U);
}

TEST_P(OriginConformance, SaysWhenAKeptObjectWasSwept) {
  auto origin = open();
  put(*origin, 1, 2);
  ASSERT_TRUE(origin->sync());
  auto writer = open();
  ASSERT_TRUE(writer->keep(numbered_name(1)));
  const std::vector<ObjectName> gone{numbered_name(1)};
  ASSERT_TRUE(origin->bury(gone, at(1)));
  ASSERT_EQ(origin->sweep(gone, at(1)).value().objects, 1U);
  EXPECT_EQ(writer->sync().error().code(), Errc::kUnavailable);
  ASSERT_TRUE(writer->discard());
  put(*writer, 1, 1);
  ASSERT_TRUE(writer->sync());
  expect_holds(*origin, 1, 2);
}

TEST_P(OriginConformance, NobodySeesALeafBeforeItsExtents) {
  const DomainKeys keys{DigestKey{}};
  const auto writer = open();
  const auto other = open();
  put(*writer, 1, 1);
  ManifestBuilder builder(*writer, keys, kPageSize);
  const PageRef ref{.digest = numbered_name(9), .place = {.extent = numbered_name(1), .slot = 0}};
  ASSERT_TRUE(builder.set(0, ref));
  const VersionId version = builder.finish().value();
  EXPECT_TRUE(writer->contains(version).value());
  EXPECT_FALSE(other->contains(version).value());

  ASSERT_TRUE(writer->sync());
  const auto found = Manifest::open(*other, keys, version).value().find(0).value();
  ASSERT_TRUE(found);
  EXPECT_EQ(found->place, ref.place);
  expect_holds(*other, 1, 1);
}

/// Equal pages make equal leaves, wherever they lie: the leaf that is there decides.
TEST_P(OriginConformance, NobodyReliesOnALeafThatLacksItsExtents) {
  const DomainKeys keys{DigestKey{}};
  auto origin = open();
  put(*origin, 1, 1);
  const auto build = [&](std::uint64_t extent) {
    ManifestBuilder builder(*origin, keys, kPageSize);
    const PageRef ref{.digest = numbered_name(9),
                      .place = {.extent = numbered_name(extent), .slot = 0}};
    ASSERT_TRUE(builder.set(0, ref));
    ASSERT_TRUE(builder.finish());
  };
  constexpr std::uint64_t kStored = 1;
  constexpr std::uint64_t kLost = 2;
  build(kLost);
  ASSERT_TRUE(origin->sync());
  build(kStored);
  EXPECT_EQ(origin->sync().error().code(), Errc::kUnavailable);
}

TEST_P(OriginConformance, EveryFlippedBitIsNoticedAndItsPlaceNamed) {
  auto origin = open();
  put(*origin, 3, 3);
  ASSERT_TRUE(origin->sync());
  const std::size_t size = bytes_of(3).size() + 52;  // A record's header comes first.
  for (std::size_t byte = 0; byte < size; byte += 1 + byte / 60) {
    place_->damage(numbered_name(3), byte);
    const auto reader = open(Access::kRead);
    const auto bytes = reader->get(numbered_name(3));
    ASSERT_FALSE(bytes) << byte;
    EXPECT_EQ(bytes.error().code(), Errc::kCorrupt) << byte;
    EXPECT_NE(bytes.error().message().find(reader->place(numbered_name(3))), std::string::npos);
    place_->damage(numbered_name(3), byte);
  }
  expect_holds(*origin, 3, 3);
}

/// A whole store: import, commits, clones, garbage, verification.
class StoreConformance : public ::testing::TestWithParam<StorePlaceKind> {
 protected:
  std::unique_ptr<ImageStore> open(DirOrigin::Access access = DirOrigin::Access::kWrite) {
    auto options = place_->store_options();
    options.access = access;
    auto store = ImageStore::open(options);
    if (!store) std::cerr << store.error().message() << "\n";
    return std::move(store).value();
  }
  std::filesystem::path file(const std::string& name, std::span<const std::byte> bytes) {
    write_file(scratch_ / name, bytes);
    return scratch_ / name;
  }
  static std::vector<std::byte> read(ImageStore& store, const std::string& image,
                                     std::uint64_t number = 0) {
    auto reader = ImageReader::open(store, image, number).value();
    std::vector<std::byte> bytes(reader->size_bytes());
    EXPECT_TRUE(reader->read(0, bytes));
    return bytes;
  }
  static void expect_clean(ImageStore& store) {
    const auto report = verify_store(store, {}).value();
    EXPECT_TRUE(report.clean()) << report.descriptions.front();
  }

  std::unique_ptr<StorePlace> place_ = GetParam().make();
  Scratch scratch_;
  fakes::FakeClock clock_;
};

TEST_P(StoreConformance, IsNotThereBeforeItIsMade) {
  auto options = place_->store_options();
  EXPECT_EQ(ImageStore::open(options).error().code(), Errc::kNotFound);
}

TEST_P(StoreConformance, ImagesComeBackAndShareTheirPages) {
  const auto disk = disk_bytes(900, 1);
  auto other = disk;
  const auto own = random_bytes(20 * kPageSize, 2);
  std::copy(own.begin(), own.end(), other.begin() + 100 * kPageSize);
  {
    auto store = open();
    ASSERT_TRUE(import_file(*store, file("one", disk), "one"));
    EXPECT_EQ(import_file(*store, file("other", other), "other").value().new_pages, 20U);
  }
  auto store = open(DirOrigin::Access::kRead);
  EXPECT_EQ(read(*store, "one"), disk);
  EXPECT_EQ(read(*store, "other"), other);
  expect_clean(*store);
}

TEST_P(StoreConformance, CommitsFromManyThreadsAtOnceMerge) {
  constexpr std::size_t kThreads = 8;
  constexpr std::size_t kPagesEach = 16;
  auto disk = disk_bytes(kThreads * kPagesEach, 3);
  auto store = open();
  ASSERT_TRUE(import_file(*store, file("disk", disk), "disk"));
  const VersionId base = store->catalog().find("disk").value().head.id;
  {
    std::vector<std::jthread> writers;
    for (std::size_t i = 0; i < kThreads; ++i) {
      const auto fresh = random_bytes(kPagesEach * kPageSize, 10 + i);
      std::copy(fresh.begin(), fresh.end(),
                disk.begin() + static_cast<std::ptrdiff_t>(i * fresh.size()));
      writers.emplace_back([this, i, fresh, base] {
        const auto own = open();
        auto commit = Commit::begin(*own, {.image = "disk", .base = base}).value();
        ASSERT_TRUE(commit->put(i * kPagesEach, fresh));
        const auto finished = commit->finish(SystemClock());
        ASSERT_TRUE(finished) << finished.error().message();
      });
    }
  }
  EXPECT_EQ(store->catalog().find("disk").value().head.number, 1 + kThreads);
  EXPECT_EQ(read(*store, "disk"), disk);
  expect_clean(*store);
}

TEST_P(StoreConformance, OldVersionsStayAndClonesCostNothing) {
  auto store = open();
  auto disk = disk_bytes(300, 4);
  const auto before = disk;
  ASSERT_TRUE(import_file(*store, file("disk", disk), "disk"));
  const auto fresh = random_bytes(5 * kPageSize, 5);
  auto commit = Commit::begin(*store, {.image = "disk",
                                       .base = store->catalog().find("disk").value().head.id})
                    .value();
  ASSERT_TRUE(commit->put(7, fresh));
  ASSERT_TRUE(commit->finish(clock_));
  commit.reset();
  std::copy(fresh.begin(), fresh.end(), disk.begin() + 7 * kPageSize);
  ASSERT_TRUE(clone_image(*store, {.source = "disk", .number = 1, .name = "old"}, clock_));
  EXPECT_EQ(read(*store, "disk", 2), disk);
  EXPECT_EQ(read(*store, "disk", 1), before);
  EXPECT_EQ(read(*store, "old"), before);
  EXPECT_EQ(clone_image(*store, {.source = "disk", .name = "old"}, clock_).error().code(),
            Errc::kInvalid);
}

TEST_P(StoreConformance, GarbageGoesAfterTheGraceTimeAndNothingElseDoes) {
  auto store = open();
  const auto kept = disk_bytes(400, 6);
  auto gone = kept;
  const auto own = random_bytes(200 * kPageSize, 7);
  gone.insert(gone.end(), own.begin(), own.end());
  ASSERT_TRUE(import_file(*store, file("kept", kept), "kept"));
  ASSERT_TRUE(import_file(*store, file("gone", gone), "gone"));
  const auto now = [&] { return std::chrono::floor<std::chrono::seconds>(clock_.today()); };
  ASSERT_TRUE(store->catalog().remove("gone", now()));
  const auto first = collect_garbage(*store, {}, clock_).value();
  EXPECT_GT(first.buried_bytes, own.size());
  clock_.advance(std::chrono::hours(25));
  const auto second = collect_garbage(*store, {}, clock_).value();
  EXPECT_EQ(second.swept_objects, first.buried_objects);
  EXPECT_EQ(second.swept_bytes, first.buried_bytes);
  EXPECT_EQ(read(*store, "kept"), kept);
  expect_clean(*store);
  EXPECT_EQ(import_file(*store, scratch_ / "gone", "gone").value().new_pages, 200U);
  EXPECT_EQ(read(*store, "gone"), gone);
}

TEST_P(StoreConformance, DamageIsReportedNotServed) {
  auto store = open();
  ASSERT_TRUE(import_file(*store, file("disk", random_bytes(40 * kPageSize, 8)), "disk"));
  std::vector<ObjectName> names;
  ASSERT_TRUE(store->origin().list([&](const StoredObject& object) -> Result<void> {
    names.push_back(object.name);
    return {};
  }));
  for (const ObjectName& name : names) {
    place_->damage(name, 300);
    auto reader = open(DirOrigin::Access::kRead);
    const auto report = verify_store(*reader, {}).value();
    EXPECT_FALSE(report.clean());
    std::vector<std::byte> bytes(40 * kPageSize);
    auto image = ImageReader::open(*reader, "disk");
    EXPECT_FALSE(image && (*image)->read(0, bytes)) << to_hex(name);
    place_->damage(name, 300);
  }
  expect_clean(*store);
}

}  // namespace samepage::imagestore
