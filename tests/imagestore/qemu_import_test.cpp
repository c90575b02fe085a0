// The promises under test: an image of any format that QEMU knows is imported as the guest sees it,
// by its content and not by its name; a hostile image gets nothing of the host but itself.

#include <algorithm>
#include <cstdlib>
#include <thread>

#include <fcntl.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include "core/fd.h"
#include "imagestore/image_format.h"
#include "imagestore/image_reader.h"
#include "imagestore/nbd_source.h"
#include "imagestore/sandbox.h"
#include "tests/imagestore/scratch.h"

namespace samepage::imagestore {
namespace {

// NOLINTBEGIN(concurrency-mt-unsafe): the tests have no other threads when they run commands.
bool runs(const std::string& command) {
  return std::system((command + " >/dev/null").c_str()) == 0;
}

class QemuImportTest : public ::testing::Test {
 protected:
  void SetUp() override {
    if (runs("command -v qemu-img && command -v qemu-nbd")) return;
    const char* ci = std::getenv("CI");
    if (ci != nullptr && std::string(ci) == "true") FAIL() << "no qemu-img or qemu-nbd";
    GTEST_SKIP() << "no qemu-img or qemu-nbd: tools/setup installs qemu-utils";
  }
  // NOLINTEND(concurrency-mt-unsafe)

  std::string path(const std::string& name) const { return (scratch_ / name).string(); }

  /// An image of `disk_` in another format.
  std::string converted(const std::string& name, const std::string& arguments) {
    write_file(scratch_ / "disk.raw", disk_);
    EXPECT_TRUE(
        runs("qemu-img convert -f raw " + arguments + " " + path("disk.raw") + " " + path(name)));
    return path(name);
  }

  Result<ImportReport> import_it(const std::string& file, const std::string& name,
                                 bool follow_backing = false) {
    const auto store = open_store(scratch_ / "store");
    const SystemClock clock;
    return import_image(*store, {.path = file, .name = name, .follow_backing = follow_backing},
                        clock);
  }

  void expect_holds(const std::string& image, std::span<const std::byte> bytes) {
    const auto store = open_store(scratch_ / "store", DirOrigin::Access::kRead);
    auto reader = ImageReader::open(*store, image).value();
    ASSERT_GE(reader->size_bytes(), bytes.size());
    std::vector<std::byte> held(reader->size_bytes());
    ASSERT_TRUE(reader->read(0, held));
    EXPECT_TRUE(std::ranges::equal(std::span(held).first(bytes.size()), bytes)) << image;
    EXPECT_TRUE(std::ranges::all_of(std::span(held).subspan(bytes.size()),
                                    [](std::byte byte) { return byte == std::byte{0}; }));
  }

  void patch(const std::string& file, off_t offset, std::span<const std::byte> bytes) {
    const Fd fd(::open(file.c_str(), O_WRONLY));
    ASSERT_EQ(::pwrite(fd.get(), bytes.data(), bytes.size(), offset),
              static_cast<ssize_t>(bytes.size()));
  }

  Scratch scratch_;
  std::vector<std::byte> disk_ = disk_bytes(2000, 21);
};

TEST_F(QemuImportTest, EveryFormatIsReadAsTheGuestSeesIt) {
  struct Case {
    const char* format;
    const char* arguments;
  };
  for (const Case& each :
       {Case{"qcow2", "-O qcow2"}, Case{"qcow2", "-c -O qcow2"},
        Case{"qcow2", "-O qcow2 -o cluster_size=512"}, Case{"vdi", "-O vdi"},
        Case{"vmdk", "-O vmdk"}, Case{"vmdk", "-O vmdk -o subformat=streamOptimized"},
        Case{"vhdx", "-O vhdx"}, Case{"qcow", "-O qcow"}, Case{"qed", "-O qed"}}) {
    std::string name = each.arguments;
    std::erase_if(name, [](char c) { return c == ' ' || c == '='; });
    name.insert(0, "x");
    // The name lies about the format.
    const auto report = import_it(converted("disk.iso", each.arguments), name);
    ASSERT_TRUE(report) << each.arguments << ": " << report.error().message();
    EXPECT_EQ(report->version.source_format, each.format);
    expect_holds(name, disk_);
  }
}

TEST_F(QemuImportTest, TheSameDiskInAnotherFormatIsTheSameVersion) {
  const auto raw = import_it(converted("disk.raw2", "-O raw"), "raw").value();
  const auto qcow2 = import_it(converted("disk.qcow2", "-c -O qcow2"), "qcow2").value();
  EXPECT_EQ(qcow2.new_pages, 0U);
  EXPECT_EQ(qcow2.version.id, raw.version.id);
}

TEST_F(QemuImportTest, SparseQcow2WithUnalignedClustersAndOddSize) {
  const auto image = path("sparse.qcow2");
  ASSERT_TRUE(runs("qemu-img create -f qcow2 -o cluster_size=512 " + image + " 3000000512"));
  ASSERT_TRUE(
      runs("qemu-io -f qcow2 -c 'write -P 7 4608 1024' -c 'write -P 8 2999999488 1024' " + image));
  ASSERT_TRUE(import_it(image, "sparse"));
  ASSERT_TRUE(runs("qemu-img convert -O raw " + image + " " + path("sparse.raw")));
  const auto store = open_store(scratch_ / "store", DirOrigin::Access::kRead);
  auto reader = ImageReader::open(*store, "sparse").value();
  EXPECT_EQ(reader->size_bytes(), 3'000'000'512U);
  std::array<std::byte, 8192> bytes{};
  ASSERT_TRUE(reader->read(0, bytes));
  for (std::size_t i = 0; i < bytes.size(); ++i) {
    EXPECT_EQ(bytes[i], i >= 4608 && i < 5632 ? std::byte{7} : std::byte{0}) << i;
  }
  ASSERT_TRUE(reader->read(3'000'000'512 - 8192, bytes));
  EXPECT_EQ(bytes.back(), std::byte{8});
  EXPECT_EQ(import_it(path("sparse.raw"), "raw").value().new_pages, 0U);
}

TEST_F(QemuImportTest, TheFormatCanBeGiven) {
  const auto image = converted("disk.qcow2", "-O qcow2");
  const auto store = open_store(scratch_ / "store");
  const SystemClock clock;
  const auto as_raw =
      import_image(*store, {.path = image, .name = "as-raw", .format = "raw"}, clock);
  ASSERT_TRUE(as_raw);
  EXPECT_EQ(as_raw->version.size_bytes, std::filesystem::file_size(image));
  for (const char* format : {"vdi", "nonsense", "../x", "a\"b", ""}) {
    const auto wrong =
        import_image(*store, {.path = image, .name = "wrong", .format = format}, clock);
    if (*format == '\0') continue;
    ASSERT_FALSE(wrong) << format;
    EXPECT_EQ(wrong.error().code(), Errc::kInvalid) << wrong.error().message();
  }
}

TEST_F(QemuImportTest, ABackingFileIsReadOnlyWhenAskedFor) {
  converted("base.qcow2", "-O qcow2");
  const auto overlay = path("overlay.qcow2");
  ASSERT_TRUE(runs("qemu-img create -f qcow2 -F qcow2 -b base.qcow2 " + overlay));
  ASSERT_TRUE(runs("qemu-io -f qcow2 -c 'write -P 9 0 4096' " + overlay));

  const auto refused = import_it(overlay, "overlay");
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code(), Errc::kInvalid);
  EXPECT_NE(refused.error().message().find("base.qcow2"), std::string::npos);
  EXPECT_NE(refused.error().message().find("--follow-backing"), std::string::npos);

  ASSERT_TRUE(import_it(overlay, "overlay", true));
  auto expected = disk_;
  std::fill_n(expected.begin(), kPageSize, std::byte{9});
  expect_holds("overlay", expected);
}

TEST_F(QemuImportTest, AnExternalDataFileIsRefused) {
  const auto image = path("with-data.qcow2");
  ASSERT_TRUE(runs("qemu-img create -f qcow2 -o data_file=" + path("data.raw") +
                   ",data_file_raw=on " + image + " 10M"));
  for (const bool follow : {false, true}) {
    const auto refused = import_it(image, "x", follow);
    ASSERT_FALSE(refused);
    EXPECT_EQ(refused.error().code(), Errc::kInvalid);
    EXPECT_NE(refused.error().message().find("external data file"), std::string::npos);
  }
}

TEST_F(QemuImportTest, AVmdkThatNamesOtherFilesIsRefused) {
  const auto image = path("flat.vmdk");
  ASSERT_TRUE(runs("qemu-img create -f vmdk -o subformat=monolithicFlat " + image + " 10M"));
  EXPECT_EQ(import_it(image, "x").error().code(), Errc::kInvalid);
}

TEST_F(QemuImportTest, EvenAnImageThatPassesTheCheckCannotOpenAnotherFile) {
  if (::access("/proc/self/fd", F_OK) != 0) GTEST_SKIP();
  write_file(scratch_ / "secret.raw", random_bytes(1U << 20U, 5));
  bool restricted = false;
  bool opened_allowed = false;
  bool opened_other = false;
  write_file(scratch_ / "allowed", random_bytes(100, 1));
  std::thread([&] {
    const Fd allowed(::open(path("allowed").c_str(), O_RDONLY | O_CLOEXEC));
    const auto result = restrict_thread_to({"/usr"}, allowed.get());
    restricted = result && *result;
    opened_allowed = bool(Fd(::open(path("allowed").c_str(), O_RDONLY | O_CLOEXEC)));
    opened_other = bool(Fd(::open(path("secret.raw").c_str(), O_RDONLY | O_CLOEXEC)));
  }).join();
  if (!restricted) GTEST_SKIP() << "the kernel has no Landlock";
  EXPECT_TRUE(opened_allowed);
  EXPECT_FALSE(opened_other);
  EXPECT_TRUE(Fd(::open(path("secret.raw").c_str(), O_RDONLY | O_CLOEXEC))) << "other threads may";
}

TEST_F(QemuImportTest, BehindTheCheckQemuGetsNoOtherFileEither) {
  // As when the file's owner changes it between the check and QEMU's look at it.
  const auto data = path("data.raw");
  const auto image = path("with-data.qcow2");
  ASSERT_TRUE(
      runs("qemu-img create -f qcow2 -o data_file=" + data + ",data_file_raw=on " + image + " 1M"));
  write_file(data, random_bytes(1U << 20U, 5));
  const auto with_data = open_nbd_source(Fd(::open(image.c_str(), O_RDONLY)), "qcow2");
  ASSERT_FALSE(with_data);
  EXPECT_EQ(with_data.error().code(), Errc::kInvalid);
  EXPECT_NE(with_data.error().message().find("data.raw"), std::string::npos)
      << with_data.error().message();

  const auto overlay = path("overlay.qcow2");
  ASSERT_TRUE(runs("qemu-img create -f qcow2 -F raw -b " + data + " " + overlay));
  const auto without_base = open_nbd_source(Fd(::open(overlay.c_str(), O_RDONLY)), "qcow2").value();
  while (const auto block = without_base->next().value()) {
    EXPECT_TRUE(std::all_of(block->bytes.begin(), block->bytes.end(),
                            [](std::byte byte) { return byte == std::byte{0}; }));
  }
}

TEST_F(QemuImportTest, DamagedImagesAreRefusedOrReadButNeverHang) {
  const auto image = converted("disk.qcow2", "-O qcow2");
  const auto good = read_file(image);
  const auto store = open_store(scratch_ / "store");
  std::mt19937_64 random(test_seed());
  const SystemClock clock;
  for (int round = 0; round < 12; ++round) {
    auto bad = good;
    if (round < 6) {
      bad.resize(std::array<std::size_t, 6>{4, 50, 104, 4096, 70'000, 400'000}.at(
          static_cast<std::size_t>(round)));
    } else {
      for (int i = 0; i < 20; ++i) bad[random() % 65'536] = static_cast<std::byte>(random());
      std::copy_n(good.begin(), 8, bad.begin());
    }
    write_file(scratch_ / "bad", bad);
    const auto result = import_image(
        *store, {.path = scratch_ / "bad", .name = "bad-" + std::to_string(round)}, clock);
    if (!result) {
      EXPECT_NE(result.error().code(), Errc::kTimedOut);
      EXPECT_FALSE(result.error().message().empty());
    }
  }
}

TEST_F(QemuImportTest, GarbageIsARawDisk) {
  const auto garbage = random_bytes(100'000, 6);
  write_file(scratch_ / "garbage.qcow2", garbage);
  EXPECT_EQ(import_it(path("garbage.qcow2"), "garbage").value().version.source_format, "raw");
  expect_holds("garbage", garbage);
}

}  // namespace
}  // namespace samepage::imagestore
