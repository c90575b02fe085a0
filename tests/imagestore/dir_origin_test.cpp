// The promises under test: what was synced survives, whatever happens to the files' tails; what was
// not is taken back or adopted whole; no damaged record is handed out; one writer at a time.

#include "imagestore/dir_origin.h"

#include <fstream>
#include <map>

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/file.h>

#include "core/fd.h"
#include "tests/imagestore/scratch.h"

namespace samepage::imagestore {
namespace {

using Access = DirOrigin::Access;

ObjectName name_of(std::uint64_t number) {
  StreamMac mac(DigestKey{});
  mac.update(std::as_bytes(std::span(&number, 1)));
  return mac.current();
}

class DirOriginTest : public ::testing::Test {
 protected:
  Result<std::unique_ptr<DirOrigin>> try_open(Access access) {
    return DirOrigin::open(
        {.folder = scratch_ / "packs", .access = access, .pack_bytes_max = 300'000});
  }
  std::unique_ptr<DirOrigin> open(Access access = Access::kWrite) {
    return std::move(try_open(access)).value();
  }

  /// Object `number` is as long as its number, in hundreds.
  static std::vector<std::byte> bytes_of(std::uint64_t number) {
    return random_bytes(number * 100, number);
  }
  static void put(DirOrigin& origin, std::uint64_t first, std::uint64_t last) {
    for (std::uint64_t number = first; number <= last; ++number) {
      ASSERT_TRUE(origin.put(name_of(number), bytes_of(number)));
    }
  }
  static void expect_holds(DirOrigin& origin, std::uint64_t first, std::uint64_t last) {
    for (std::uint64_t number = first; number <= last; ++number) {
      const auto bytes = origin.get(name_of(number));
      ASSERT_TRUE(bytes) << number << ": " << bytes.error().message();
      EXPECT_EQ(*bytes, bytes_of(number));
    }
  }
  std::filesystem::path pack(int number) const {
    return scratch_ / ("packs/pack-00000" + std::to_string(number));
  }

  Scratch scratch_;
};

TEST_F(DirOriginTest, HandsOutWhatWasPutAcrossPacks) {
  {
    auto origin = open();
    put(*origin, 0, 200);
    expect_holds(*origin, 0, 200);
    ASSERT_TRUE(origin->sync());
  }
  EXPECT_TRUE(std::filesystem::exists(pack(7)));
  const auto origin = open(Access::kRead);
  expect_holds(*origin, 0, 200);
  EXPECT_TRUE(origin->contains(name_of(5)).value());
  EXPECT_FALSE(origin->contains(name_of(500)).value());
  EXPECT_EQ(origin->place(name_of(0)), "pack 1 at 16");
  std::uint64_t listed = 0;
  ASSERT_TRUE(origin->list([&](const StoredObject& object) {
    EXPECT_EQ(object.name, name_of(listed++));
    return Result<void>();
  }));
  EXPECT_EQ(listed, 201U);
}

TEST_F(DirOriginTest, StoresANameOnce) {
  auto origin = open();
  put(*origin, 50, 50);
  ASSERT_TRUE(origin->sync());
  const auto before = std::filesystem::file_size(pack(1));
  put(*origin, 50, 50);
  ASSERT_TRUE(origin->sync());
  EXPECT_EQ(std::filesystem::file_size(pack(1)), before);
}

TEST_F(DirOriginTest, AReaderSeesOnlyWhatWasSynced) {
  auto writer = open();
  put(*writer, 1, 1);
  ASSERT_TRUE(writer->sync());
  auto reader = open(Access::kRead);
  put(*writer, 2, 2);
  EXPECT_EQ(reader->get(name_of(2)).error().code(), Errc::kNotFound);
  ASSERT_TRUE(writer->sync());
  expect_holds(*reader, 1, 2);
}

TEST_F(DirOriginTest, WritersWriteAtTheSameTime) {
  auto first = open();
  auto second = open();
  put(*first, 1, 40);
  put(*second, 30, 60);
  EXPECT_EQ(second->get(name_of(1)).error().code(), Errc::kNotFound);
  ASSERT_TRUE(second->sync());
  ASSERT_TRUE(first->sync());
  expect_holds(*first, 1, 60);
  expect_holds(*second, 1, 60);
  put(*first, 61, 70);
  put(*second, 71, 80);
  ASSERT_TRUE(first->discard());
  ASSERT_TRUE(second->sync());
  auto third = open();
  EXPECT_EQ(third->repairs().objects_adopted, 0U) << "what was discarded is of no use to anybody";
  expect_holds(*third, 71, 80);
  EXPECT_FALSE(third->contains(name_of(61)).value());
}

TEST_F(DirOriginTest, AWriterLeavesAloneWhatAnotherIsWriting) {
  auto first = open();
  put(*first, 1, 20);
  auto second = open();
  EXPECT_EQ(second->repairs().objects_adopted, 0U);
  ASSERT_TRUE(second->sweep({}, {})) << "nor frees it";
  ASSERT_TRUE(first->sync());
  expect_holds(*second, 1, 20);
}

TEST_F(DirOriginTest, ALockThatIsNeverLetGoIsSaid) {
  auto origin = DirOrigin::open({.folder = scratch_ / "packs",
                                 .access = Access::kWrite,
                                 .lock_time_max = std::chrono::milliseconds(5)})
                    .value();
  // As a process leaves it that was stopped in mid-append.
  const std::string path = scratch_ / "packs/lock";
  Fd held(::open(path.c_str(), O_RDWR | O_CLOEXEC));
  ASSERT_EQ(::flock(held.get(), LOCK_EX), 0);
  EXPECT_EQ(origin->put(name_of(1), bytes_of(1)).error().code(), Errc::kUnavailable);
  held = Fd();
  EXPECT_TRUE(origin->put(name_of(1), bytes_of(1)));
}

TEST_F(DirOriginTest, RefusesToReadWhereNothingIs) {
  EXPECT_EQ(try_open(Access::kRead).error().code(), Errc::kNotFound);
}

TEST_F(DirOriginTest, RefusesToWriteThroughAReaderAndBeyondTheLimit) {
  auto writer = open();
  EXPECT_EQ(writer->put(name_of(1), random_bytes(kObjectBytesMax + 1, 1)).error().code(),
            Errc::kInvalid);
  auto reader = open(Access::kRead);
  EXPECT_EQ(reader->put(name_of(1), bytes_of(1)).error().code(), Errc::kInvalid);
}

TEST_F(DirOriginTest, DiscardTakesBackObjectsAndTheirRoom) {
  auto origin = open();
  put(*origin, 1, 60);
  ASSERT_TRUE(origin->sync());
  const auto before = std::filesystem::file_size(pack(1));
  put(*origin, 61, 200);
  ASSERT_TRUE(std::filesystem::exists(pack(3)));

  ASSERT_TRUE(origin->discard());

  EXPECT_EQ(std::filesystem::file_size(pack(1)), before);
  EXPECT_EQ(std::filesystem::file_size(pack(2)), 16U) << "an empty pack";
  EXPECT_FALSE(origin->contains(name_of(61)).value());
  expect_holds(*origin, 1, 60);
  put(*origin, 61, 200);
  ASSERT_TRUE(origin->sync());
  expect_holds(*origin, 1, 200);
}

TEST_F(DirOriginTest, EveryTornTailIsCutOffAndWholeRecordsBeforeItAreAdopted) {
  {
    auto origin = open();
    put(*origin, 1, 3);
    ASSERT_TRUE(origin->sync());
  }
  const auto synced = read_file(pack(1));
  // Records 4 and 5 as a writer leaves them that dies before it syncs.
  Scratch other;
  {
    auto origin = DirOrigin::open({.folder = other.folder(), .access = Access::kWrite}).value();
    put(*origin, 1, 5);
    ASSERT_TRUE(origin->sync());
  }
  const auto whole = read_file(other / "pack-000001");
  const std::size_t record_4_end = synced.size() + 52 + 400;
  ASSERT_EQ(whole.size(), record_4_end + 52 + 500);
  for (std::size_t size = synced.size(); size <= whole.size(); size += 31) {
    std::filesystem::remove_all(scratch_ / "packs");
    {
      auto origin = open();
      put(*origin, 1, 3);
      ASSERT_TRUE(origin->sync());
    }
    write_file(pack(1), std::span(whole).first(size));

    auto origin = open();

    expect_holds(*origin, 1, 3);
    const std::uint64_t adopted =
        (size >= record_4_end ? 1U : 0U) + (size >= whole.size() ? 1U : 0U);
    EXPECT_EQ(origin->repairs().objects_adopted, adopted) << size;
    expect_holds(*origin, 1, 3 + adopted);
    put(*origin, 4, 9);
    ASSERT_TRUE(origin->sync());
    expect_holds(*origin, 1, 9);
  }
}

TEST_F(DirOriginTest, AdoptsWholeRecordsBehindATornOne) {
  {
    auto origin = open();
    put(*origin, 1, 20);
    ASSERT_TRUE(origin->sync());
  }
  std::filesystem::remove(scratch_ / "packs/index.db");
  std::filesystem::remove(scratch_ / "packs/index.db-wal");
  auto bytes = read_file(pack(1));
  bytes[16 + 52 + 50] ^= std::byte{1};  // In the body of object 1.
  write_file(pack(1), bytes);

  auto origin = open();

  EXPECT_EQ(origin->repairs().objects_adopted, 19U);
  EXPECT_FALSE(origin->contains(name_of(1)).value());
  expect_holds(*origin, 2, 20);
}

TEST_F(DirOriginTest, ALostIndexIsRebuiltFromThePacks) {
  {
    auto origin = open();
    put(*origin, 1, 150);
    ASSERT_TRUE(origin->sync());
  }
  for (const char* file : {"packs/index.db", "packs/index.db-wal", "packs/index.db-shm"}) {
    std::filesystem::remove(scratch_ / file);
  }
  auto origin = open();
  EXPECT_EQ(origin->repairs().objects_adopted, 150U);
  EXPECT_EQ(origin->repairs().bytes_cut, 0U);
  expect_holds(*origin, 1, 150);
}

TEST_F(DirOriginTest, EveryFlippedBitIsNoticedAndItsPlaceNamed) {
  {
    auto origin = open();
    put(*origin, 3, 3);
    ASSERT_TRUE(origin->sync());
  }
  const auto good = read_file(pack(1));
  for (std::size_t at = 0; at < good.size(); ++at) {
    auto bad = good;
    bad[at] ^= static_cast<std::byte>(1U << (at % 8));
    write_file(pack(1), bad);
    auto origin = open(Access::kRead);
    const auto bytes = origin->get(name_of(3));
    ASSERT_FALSE(bytes) << at;
    // The header's format field says "another release" rather than damage.
    const Errc expected = at >= 8 && at < 12 ? Errc::kInvalid : Errc::kCorrupt;
    EXPECT_EQ(bytes.error().code(), expected) << at;
    EXPECT_NE(bytes.error().message().find("pack 1 at 16"), std::string::npos);
  }
}

TEST_F(DirOriginTest, AMissingOrShortPackIsCorruptAndNothingIsAppendedToIt) {
  {
    auto origin = open();
    put(*origin, 1, 20);
    ASSERT_TRUE(origin->sync());
  }
  std::filesystem::resize_file(pack(1), 5000);
  {
    auto origin = open();
    EXPECT_EQ(origin->get(name_of(20)).error().code(), Errc::kCorrupt);
    put(*origin, 21, 30);
    ASSERT_TRUE(origin->sync());
    expect_holds(*origin, 21, 30);
    EXPECT_EQ(origin->place(name_of(21)), "pack 2 at 16");
  }
  std::filesystem::remove(pack(1));
  auto origin = open();
  EXPECT_EQ(origin->get(name_of(1)).error().code(), Errc::kCorrupt);
  expect_holds(*origin, 21, 30);
}

TEST_F(DirOriginTest, APackOfANewerFormatIsInvalid) {
  {
    auto origin = open();
    put(*origin, 1, 1);
    ASSERT_TRUE(origin->sync());
  }
  auto bytes = read_file(pack(1));
  bytes[8] = std::byte{9};
  write_file(pack(1), bytes);
  EXPECT_EQ(try_open(Access::kWrite).error().code(), Errc::kInvalid);
}

}  // namespace
}  // namespace samepage::imagestore
