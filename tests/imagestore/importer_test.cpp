// The promises under test: what is imported is read back identical, whatever its size and holes;
// each page is kept once in the whole store; an import that fails or is cancelled leaves nothing.

#include "imagestore/importer.h"

#include <csignal>

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include "core/fd.h"
#include "imagestore/exporter.h"
#include "imagestore/image_reader.h"
#include "imagestore/verifier.h"
#include "tests/imagestore/scratch.h"

namespace samepage::imagestore {
namespace {

using Access = DirOrigin::Access;

std::uint64_t folder_bytes(const std::filesystem::path& folder) {
  std::uint64_t bytes = 0;
  for (const auto& entry : std::filesystem::recursive_directory_iterator(folder)) {
    if (entry.is_regular_file()) bytes += entry.file_size();
  }
  return bytes;
}

class ImporterTest : public ::testing::Test {
 protected:
  std::filesystem::path file(const std::string& name, std::span<const std::byte> bytes) {
    write_file(scratch_ / name, bytes);
    return scratch_ / name;
  }

  std::vector<std::byte> read_back(const std::string& image) {
    const auto store = open_store(scratch_ / "store", Access::kRead);
    auto reader = ImageReader::open(*store, image).value();
    std::vector<std::byte> bytes(reader->size_bytes());
    const auto read = reader->read(0, bytes);
    EXPECT_TRUE(read) << read.error().message();
    return bytes;
  }

  VerifyReport verify() {
    const auto store = open_store(scratch_ / "store", Access::kRead);
    return verify_store(*store, {}).value();
  }

  Scratch scratch_;
};

TEST_F(ImporterTest, RawImagesOfAnySizeAreReadBackIdentical) {
  const std::uint64_t seed = test_seed();
  const auto bytes = disk_bytes(600, seed);
  const auto store = open_store(scratch_ / "store");
  for (const std::size_t size : {std::size_t{0}, std::size_t{1}, std::size_t{511}, kPageSize,
                                 kPageSize + 1, std::size_t{300'001}, bytes.size() - 1}) {
    const auto part = std::span(bytes).last(size);
    const std::string name = "size-" + std::to_string(size);

    const auto report = import_file(*store, file("disk", part), name);

    ASSERT_TRUE(report) << report.error().message();
    EXPECT_EQ(report->version.size_bytes, size);
    EXPECT_EQ(report->version.source_format, "raw");
    EXPECT_EQ(report->pages, pages_in(size));
    EXPECT_TRUE(std::ranges::equal(read_back(name), part)) << size;
  }
  EXPECT_TRUE(verify().clean());
}

TEST_F(ImporterTest, AnyRangeIsReadAndNoneBeyondTheEnd) {
  const auto bytes = disk_bytes(200, 5);
  const auto store = open_store(scratch_ / "store");
  ASSERT_TRUE(import_file(*store, file("disk", std::span(bytes).first(500'000)), "disk"));
  auto reader = ImageReader::open(*store, "disk").value();
  std::mt19937_64 random(test_seed());
  for (int i = 0; i < 300; ++i) {
    const std::size_t offset = random() % 500'001;
    std::vector<std::byte> part(random() % (500'001 - offset));
    ASSERT_TRUE(reader->read(offset, part));
    EXPECT_TRUE(std::ranges::equal(part, std::span(bytes).subspan(offset, part.size())));
  }
  std::array<std::byte, 2> two{};
  EXPECT_EQ(reader->read(499'999, two).error().code(), Errc::kInvalid);
  EXPECT_EQ(reader->read(UINT64_MAX, two).error().code(), Errc::kInvalid);
  EXPECT_EQ(ImageReader::open(*store, "other").error().code(), Errc::kNotFound);
}

TEST_F(ImporterTest, HolesAreSkippedAndExportedAsHoles) {
  const auto path = scratch_ / "sparse.img";
  const auto data = random_bytes(10'000, 3);
  {
    const Fd fd(::open(path.c_str(), O_RDWR | O_CREAT, 0600));
    ASSERT_EQ(::ftruncate(fd.get(), (off_t{600} << 20) + 77), 0);
    ASSERT_EQ(::pwrite(fd.get(), data.data(), data.size(), (off_t{500} << 20) + 123), 10'000);
  }
  const auto store = open_store(scratch_ / "store");

  const auto report = import_file(*store, path, "sparse").value();
  ASSERT_TRUE(export_image(*store, "sparse", 0, scratch_ / "back.img", {}));

  EXPECT_EQ(report.new_pages, 3U);
  struct stat about {};
  ASSERT_EQ(::stat((scratch_ / "back.img").c_str(), &about), 0);
  EXPECT_EQ(about.st_size, (off_t{600} << 20) + 77);
  EXPECT_LT(about.st_blocks * 512, 1 << 20);
  const std::string compare = "cmp " + path.string() + " " + (scratch_ / "back.img").string();
  EXPECT_EQ(std::system(compare.c_str()), 0);  // NOLINT(concurrency-mt-unsafe)
  EXPECT_EQ(export_image(*store, "sparse", 0, scratch_ / "back.img", {}).error().code(),
            Errc::kInvalid)
      << "an existing file is left alone";
}

TEST_F(ImporterTest, EachPageIsKeptOnceInTheWholeStore) {
  auto bytes = random_bytes(1000 * kPageSize, 1);
  std::copy_n(bytes.begin(), 100 * kPageSize, bytes.begin() + 500 * kPageSize);
  std::fill_n(bytes.begin() + 700 * kPageSize, 50 * kPageSize, std::byte{0});
  const auto first_path = file("first", bytes);
  auto derived = bytes;
  const auto changed = random_bytes(20 * kPageSize, 2);
  std::ranges::copy(changed, derived.begin() + 200 * kPageSize);
  std::rotate(derived.begin(), derived.begin() + 3 * kPageSize, derived.end());
  const auto second_path = file("second", derived);
  const auto store = open_store(scratch_ / "store");

  const auto first = import_file(*store, first_path, "first").value();
  const auto again = import_file(*store, first_path, "again").value();
  const auto second = import_file(*store, second_path, "second").value();

  EXPECT_EQ(first.pages, 1000U);
  EXPECT_EQ(first.zero_pages, 50U);
  EXPECT_EQ(first.duplicate_pages, 100U);
  EXPECT_EQ(first.new_pages, 850U);
  EXPECT_EQ(again.new_pages, 0U);
  EXPECT_EQ(again.version.id, first.version.id) << "equal images are the same version";
  EXPECT_EQ(second.new_pages, 20U);
  EXPECT_EQ(second.duplicate_pages, 930U);
  EXPECT_EQ(read_back("second"), derived);
  EXPECT_EQ(verify().stored_pages, 870U);
}

TEST_F(ImporterTest, TextIsCompressedAndNoiseIsNot) {
  std::vector<std::byte> text(320 * kPageSize);
  for (std::size_t i = 0; i < text.size(); ++i) {
    text[i] = static_cast<std::byte>('a' + (i / 64 + i % 7) % 26);
  }
  for (std::size_t page = 0; page < 320; ++page) text[page * kPageSize] = std::byte(page % 251);
  const auto store = open_store(scratch_ / "store");
  const auto report = import_file(*store, file("text", text), "text").value();
  const auto noise =
      import_file(*store, file("noise", random_bytes(320 * kPageSize, 4)), "noise").value();
  EXPECT_LT(report.version.stored_bytes, report.version.new_bytes / 2);
  EXPECT_GE(noise.version.stored_bytes, noise.version.new_bytes);
  EXPECT_EQ(read_back("text"), text);
}

TEST_F(ImporterTest, NamesComeFromTheFileAndMustBeFree) {
  const auto path = file("debian-12.raw", random_bytes(5000, 1));
  const auto store = open_store(scratch_ / "store");
  const SystemClock clock;
  EXPECT_EQ(import_image(*store, {.path = path}, clock).value().name, "debian-12");
  EXPECT_EQ(import_image(*store, {.path = path}, clock).error().code(), Errc::kInvalid);
  for (const char* name : {"a/b", "..", "-x", "two words", ""}) {
    EXPECT_EQ(check_image_name(name).error().code(), Errc::kInvalid) << name;
  }
  EXPECT_EQ(import_file(*store, path, "../x").error().code(), Errc::kInvalid);
  EXPECT_EQ(import_file(*store, scratch_ / "none", "none").error().code(), Errc::kNotFound);
  EXPECT_EQ(import_file(*store, scratch_.folder(), "folder").error().code(), Errc::kInvalid);
}

TEST_F(ImporterTest, CancellingLeavesNothing) {
  const auto store = open_store(scratch_ / "store");
  ASSERT_TRUE(import_file(*store, file("small", random_bytes(100'000, 1)), "small"));
  const auto before = folder_bytes(scratch_ / "store/packs") -
                      std::filesystem::file_size(scratch_ / "store/packs/index.db-wal");
  const auto path = file("big", random_bytes(64U << 20U, 2));
  const SystemClock clock;
  int calls = 0;
  const auto result = import_image(
      *store, {.path = path, .on_progress = [&](const ImportProgress&) { return ++calls < 2; }},
      clock);

  ASSERT_FALSE(result);
  EXPECT_EQ(result.error().code(), Errc::kUnavailable);
  EXPECT_EQ(store->catalog().list().value().size(), 1U);
  const auto after = folder_bytes(scratch_ / "store/packs") -
                     std::filesystem::file_size(scratch_ / "store/packs/index.db-wal");
  EXPECT_EQ(before, after);
  EXPECT_TRUE(import_image(*store, {.path = path}, clock)) << "the store is as good as before";
  const auto report = verify();
  EXPECT_TRUE(report.clean());
  EXPECT_EQ(report.reclaimable_objects, 0U);
}

TEST_F(ImporterTest, AFullDiskIsSaidAndTheStoreStaysClean) {
  const auto path = file("big", random_bytes(24U << 20U, 2));
  const auto store = open_store(scratch_ / "store");
  ASSERT_TRUE(import_file(*store, file("small", random_bytes(100'000, 1)), "small"));
  rlimit before{};
  ASSERT_EQ(::getrlimit(RLIMIT_FSIZE, &before), 0);
  ::signal(SIGXFSZ, SIG_IGN);
  rlimit limit = before;
  limit.rlim_cur = 10U << 20U;
  ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &limit), 0);

  const auto result = import_file(*store, path, "big");

  ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &before), 0);
  ::signal(SIGXFSZ, SIG_DFL);
  ASSERT_FALSE(result);
  EXPECT_EQ(result.error().code(), Errc::kIo);
  EXPECT_EQ(store->catalog().list().value().size(), 1U);
  EXPECT_LT(std::filesystem::file_size(scratch_ / "store/packs/pack-000001"), 1U << 20U);
  const auto report = verify();
  EXPECT_TRUE(report.clean());
  EXPECT_EQ(report.reclaimable_objects, 0U);
  EXPECT_TRUE(import_file(*store, path, "big")) << "with room it goes on";
}

TEST_F(ImporterTest, TheStoresKeyIsPrivateAndNeverMadeAnew) {
  { open_store(scratch_ / "store"); }
  const auto key = scratch_ / "store/domain.key";
  struct stat about {};
  ASSERT_EQ(::stat(key.c_str(), &about), 0);
  EXPECT_EQ(about.st_mode & 0777U, 0600U);
  EXPECT_EQ(about.st_size, 32);
  const auto open_it = [&] {
    return ImageStore::open({.folder = scratch_ / "store", .access = Access::kWrite});
  };

  ASSERT_EQ(::chmod(key.c_str(), 0644), 0);
  EXPECT_EQ(open_it().error().code(), Errc::kInvalid);
  write_file(key, random_bytes(32, 1));
  ASSERT_EQ(::chmod(key.c_str(), 0600), 0);
  EXPECT_EQ(open_it().error().code(), Errc::kInvalid) << "another key";
  std::filesystem::remove(key);
  EXPECT_EQ(open_it().error().code(), Errc::kInvalid);
  EXPECT_FALSE(std::filesystem::exists(key));
}

TEST_F(ImporterTest, SharingDomainsShareNothing) {
  const auto path = file("disk", random_bytes(50 * kPageSize, 1));
  {
    const auto store = open_store(scratch_ / "store");
    ASSERT_TRUE(import_file(*store, path, "ours"));
  }
  SharingDomain tenant{.name = "tenant", .seed = {}, .key = {}};
  tenant.key.bytes[0] = std::byte{9};
  auto store =
      ImageStore::open({.folder = scratch_ / "store", .access = Access::kWrite, .domain = tenant})
          .value();
  EXPECT_EQ(import_file(*store, path, "theirs").value().new_pages, 50U);
  EXPECT_EQ(ImageReader::open(*store, "ours").error().code(), Errc::kInvalid);
  const auto report = verify_store(*store, {}).value();
  EXPECT_TRUE(report.clean());
  EXPECT_EQ(report.images, 1U);
  EXPECT_EQ(report.images_unchecked, 1U);
  EXPECT_GT(report.objects_unchecked, 0U);
}

TEST_F(ImporterTest, ALostPageIndexIsRebuilt) {
  const auto path = file("disk", random_bytes(300 * kPageSize, 1));
  {
    const auto store = open_store(scratch_ / "store");
    ASSERT_TRUE(import_file(*store, path, "disk"));
  }
  for (const char* name : {"store/pages.db", "store/pages.db-wal", "store/pages.db-shm"}) {
    std::filesystem::remove(scratch_ / name);
  }
  const auto store = open_store(scratch_ / "store");
  EXPECT_EQ(import_file(*store, path, "again").value().new_pages, 0U);
  EXPECT_EQ(read_back("disk"), read_file(path));
}

}  // namespace
}  // namespace samepage::imagestore
