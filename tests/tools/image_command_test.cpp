// The promise under test: `samepage image` keeps, lists, verifies and hands back images without a
// placer; what it prints where, in text and JSON; and its exit codes, above all for damage.

#include <chrono>
#include <filesystem>
#include <fstream>
#include <thread>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "tests/tools/child_process.h"
#include "tests/tools/temp_dir.h"

namespace samepage::cli {
namespace {

using nlohmann::json;
using samepage::testing::ChildProcess;
using samepage::testing::TempDir;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using Output = ChildProcess::Output;

class ImageCommandTest : public ::testing::Test {
 protected:
  Output image(std::vector<std::string> arguments) {
    arguments.insert(arguments.begin(), {SAMEPAGE_PROGRAM, "image"});
    arguments.insert(arguments.end(), {"--store", folder_.file("store")});
    return samepage::testing::run(arguments);
  }

  /// 100 pages, two of them alike and ten zero.
  std::string disk() {
    std::string bytes;
    for (int page = 0; page < 90; ++page) {
      bytes += std::string(4000, static_cast<char>('a' + page % 26));
      bytes += std::to_string(1'000'000 + (page == 7 ? 33 : page));
      bytes.resize(bytes.size() + 89, page == 7 ? 'h' : static_cast<char>('a' + page % 26));
    }
    return folder_.write("disk.img", bytes + std::string(10 * 4096, '\0'));
  }

  TempDir folder_;
};

TEST_F(ImageCommandTest, ImportsListsVerifiesAndExports) {
  const std::string file = disk();

  const Output imported = image({"import", file, "--json"});
  const Output listed = image({"list"});
  const Output listed_json = image({"list", "--json"});
  const Output verified = image({"verify"});
  const Output exported = image({"export", "disk", folder_.file("back.img")});

  ASSERT_EQ(imported.exit_code, 0) << imported.err;
  const json report = json::parse(imported.out);
  EXPECT_EQ(report.at("name"), "disk");
  EXPECT_EQ(report.at("pages"), 100);
  EXPECT_EQ(report.at("zero_pages"), 10);
  EXPECT_EQ(report.at("size_bytes"), 409'600);
  EXPECT_EQ(listed.exit_code, 0);
  EXPECT_THAT(listed.out, HasSubstr("disk"));
  const json images = json::parse(listed_json.out).at("images");
  ASSERT_EQ(images.size(), 1U);
  EXPECT_EQ(images[0].at("version"), report.at("version"));
  EXPECT_EQ(images[0].at("source_format"), "raw");
  EXPECT_EQ(verified.exit_code, 0) << verified.err;
  EXPECT_THAT(verified.err, HasSubstr("clean"));
  EXPECT_EQ(exported.exit_code, 0) << exported.err;
  std::ifstream original(file, std::ios::binary);
  std::ifstream back(folder_.file("back.img"), std::ios::binary);
  EXPECT_EQ(std::string(std::istreambuf_iterator<char>(original), {}),
            std::string(std::istreambuf_iterator<char>(back), {}));
}

TEST_F(ImageCommandTest, DamageIsReportedAndFails) {
  ASSERT_EQ(image({"import", disk(), "--name", "web"}).exit_code, 0);
  {
    std::fstream pack(folder_.file("store/packs/pack-000001"),
                      std::ios::binary | std::ios::in | std::ios::out);
    pack.seekp(1500);
    pack.put('\x7F');
  }

  const Output verified = image({"verify", "web"});
  const Output all = image({"verify", "--json"});
  const Output exported = image({"export", "web", folder_.file("back.img")});

  EXPECT_EQ(verified.exit_code, 1);
  EXPECT_THAT(verified.out, HasSubstr("image web, page "));
  EXPECT_THAT(verified.out, HasSubstr("pack 1 at "));
  EXPECT_EQ(all.exit_code, 1);
  EXPECT_EQ(json::parse(all.out).at("clean"), false);
  EXPECT_EQ(exported.exit_code, 1);
  EXPECT_THAT(exported.err, HasSubstr("image web, page "));
  EXPECT_FALSE(std::filesystem::exists(folder_.file("back.img")));
}

TEST_F(ImageCommandTest, MistakesAreSaidInASentence) {
  const std::string file = disk();
  EXPECT_THAT(image({"list"}).err, HasSubstr("no image store is here"));
  EXPECT_EQ(image({"list"}).exit_code, 1);
  ASSERT_EQ(image({"import", file}).exit_code, 0);
  EXPECT_THAT(image({"import", file}).err, HasSubstr("exists already"));
  EXPECT_THAT(image({"import", file, "--name", "a b"}).err, HasSubstr("name"));
  EXPECT_THAT(image({"verify", "other"}).err, HasSubstr("no image named other"));
  const Output none = image({"import", folder_.file("none.img")});
  EXPECT_EQ(none.exit_code, 1);
  EXPECT_THAT(none.err, HasSubstr("none.img"));
  EXPECT_THAT(none.out, IsEmpty());
  EXPECT_EQ(image({"import"}).exit_code, 2);
  EXPECT_EQ(image({"shrink"}).exit_code, 2);
}

TEST_F(ImageCommandTest, CtrlCLeavesNoHalfImage) {
  {
    std::ofstream big(folder_.file("big.img"), std::ios::binary);
    std::string page(4096, 'x');
    for (int i = 0; i < 60'000; ++i) big << page.replace(0, 8, std::to_string(10'000'000 + i));
  }
  ChildProcess import({SAMEPAGE_PROGRAM, "image", "import", folder_.file("big.img"), "--store",
                       folder_.file("store")},
                      {});
  const auto give_up = std::chrono::steady_clock::now() + std::chrono::seconds(20);
  while (!std::filesystem::exists(folder_.file("store/packs/pack-000001"))) {
    ASSERT_LT(std::chrono::steady_clock::now(), give_up);
    std::this_thread::yield();
  }

  import.interrupt();
  const Output output = import.finish();

  EXPECT_EQ(output.exit_code, 1);
  EXPECT_THAT(output.err, HasSubstr("cancelled"));
  EXPECT_EQ(json::parse(image({"list", "--json"}).out).at("images").size(), 0U);
  EXPECT_EQ(image({"verify"}).exit_code, 0);
}

TEST_F(ImageCommandTest, VersionsAreCommittedClonedComparedAndRemoved) {
  ASSERT_EQ(image({"import", disk(), "--name", "web"}).exit_code, 0);
  std::string bytes = folder_.read("disk.img");
  bytes.replace(5 * 4096, 4096, std::string(4096, '\0'));
  bytes.replace(95 * 4096, 4096, std::string(4096, 'x'));
  const std::string changed = folder_.write("changed.img", bytes);

  const Output dry = image({"commit", "web", changed, "--dry-run", "--json"});
  const Output committed = image({"commit", "web", changed, "--json"});
  const Output shown = image({"show", "web", "--json"});
  const Output compared = image({"diff", "web@1", "web"});
  const Output cloned = image({"clone", "web@1", "old"});
  const Output names = image({"list", "--names"});
  const Output same = image({"diff", "web@1", "old", "--json"});
  const Output head_kept = image({"rm", "web@2"});
  const Output removed = image({"rm", "web@1"});
  const Output exported = image({"export", "old@1", folder_.file("old.img")});

  EXPECT_EQ(json::parse(dry.out).at("changed_pages"), 2) << dry.err;
  EXPECT_EQ(json::parse(committed.out).at("number"), 2) << committed.err;
  EXPECT_EQ(json::parse(committed.out).at("zeroed_pages"), 1);
  EXPECT_EQ(json::parse(shown.out).at("versions").size(), 2U) << "a dry run commits nothing";
  EXPECT_EQ(compared.out, "5 1\n95 1\n") << compared.err;
  EXPECT_EQ(cloned.exit_code, 0) << cloned.err;
  EXPECT_EQ(names.out, "old\nweb\n");
  EXPECT_EQ(json::parse(same.out).at("pages"), 0);
  EXPECT_EQ(head_kept.exit_code, 1);
  EXPECT_THAT(head_kept.err, HasSubstr("is the head of image web"));
  EXPECT_EQ(removed.exit_code, 0) << removed.err;
  EXPECT_EQ(exported.exit_code, 0) << exported.err;
  EXPECT_EQ(folder_.read("old.img"), folder_.read("disk.img"));
  EXPECT_THAT(image({"show", "web@x"}).err, HasSubstr("no image named"));
  EXPECT_THAT(image({"rm", "web@x"}).err, HasSubstr("a version's number"));
}

TEST_F(ImageCommandTest, GarbageIsMarkedFirst) {
  ASSERT_EQ(image({"import", disk(), "--name", "web"}).exit_code, 0);
  ASSERT_EQ(image({"rm", "web"}).exit_code, 0);

  const Output dry = image({"gc", "--dry-run", "--json"});
  const Output collected = image({"gc", "--json"});
  const Output again = image({"gc"});
  const Output hasty = image({"gc", "--grace-hours", "0.1"});

  EXPECT_GT(json::parse(dry.out).at("buried_objects"), 0) << dry.err;
  EXPECT_EQ(json::parse(collected.out).at("buried_objects"),
            json::parse(dry.out).at("buried_objects"));
  EXPECT_EQ(json::parse(collected.out).at("swept_objects"), 0);
  EXPECT_THAT(again.out, HasSubstr("were marked before"));
  EXPECT_EQ(hasty.exit_code, 2);
  EXPECT_EQ(image({"verify"}).exit_code, 0);
}

TEST_F(ImageCommandTest, VersionsAreFilesInAMountThatAnyToolReads) {
  if (!std::filesystem::exists("/dev/fuse")) GTEST_SKIP() << "no /dev/fuse here";
  const std::string file = disk();
  ASSERT_EQ(image({"import", file}).exit_code, 0);
  const std::string folder = folder_.file("mount");
  std::filesystem::create_directory(folder);

  ChildProcess mount({SAMEPAGE_PROGRAM, "image", "mount", folder, "--store", folder_.file("store")},
                     {});
  ASSERT_TRUE(mount.wait_for_err("images are at"));
  const Output compared = samepage::testing::run(
      {"/usr/bin/qemu-img", "compare", "-s", "-f", "raw", "-F", "raw", file, folder + "/disk/1"});
  const std::filesystem::directory_iterator listed(folder + "/disk");
  const std::string first = listed->path().filename();
  std::error_code refused;
  std::filesystem::resize_file(folder + "/disk/1", 1, refused);
  const bool has_other = std::filesystem::exists(folder + "/disk/2");
  mount.interrupt();
  const Output ended = mount.finish();

  EXPECT_EQ(compared.exit_code, 0) << compared.out << compared.err;
  EXPECT_EQ(first, "1");
  EXPECT_TRUE(refused);
  EXPECT_FALSE(has_other);
  EXPECT_EQ(ended.exit_code, 0) << ended.err;
  EXPECT_TRUE(std::filesystem::is_empty(folder));
}

TEST_F(ImageCommandTest, AnOriginThatIsNoneIsSaid) {
  const Output listed = image({"list", "--origin", "ftp:there"});
  EXPECT_EQ(listed.exit_code, 1);
  EXPECT_THAT(listed.err, HasSubstr("rados:POOL"));
}

}  // namespace
}  // namespace samepage::cli
