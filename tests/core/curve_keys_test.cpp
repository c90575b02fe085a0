// The promise under test: a host keeps one identity across restarts, in a file that nobody else can
// read, and never takes a damaged or exposed file for one.

#include "core/curve_keys.h"

#include <fstream>
#include <sstream>

#include <gtest/gtest.h>
#include <sys/stat.h>

#include "tests/core/temporary_folder.h"

namespace samepage {
namespace {

class CurveKeysTest : public ::testing::Test {
 protected:
  std::string content() const {
    std::ostringstream text;
    text << std::ifstream(path_).rdbuf();
    return text.str();
  }

  void overwrite(const std::string& text) const { std::ofstream(path_) << text; }

  TemporaryFolder folder_;
  std::string path_ = folder_.file("agent.key");
};

TEST_F(CurveKeysTest, KeepsTheIdentityThatItMade) {
  const auto made = load_or_make_curve_keys(path_);
  ASSERT_TRUE(made) << made.error().message();
  const auto loaded = load_or_make_curve_keys(path_);

  EXPECT_EQ(loaded->public_key, made->public_key);
  EXPECT_EQ(loaded->secret_key, made->secret_key);
  EXPECT_TRUE(is_curve_key(made->public_key));
  struct stat status {};
  ASSERT_EQ(::stat(path_.c_str(), &status), 0);
  EXPECT_EQ(status.st_mode & 0777U, 0600U);
}

TEST_F(CurveKeysTest, DoesNotReplaceAnIdentity) {
  ASSERT_TRUE(load_or_make_curve_keys(path_));
  const std::string before = content();

  EXPECT_EQ(save_curve_keys(generate_curve_keys().value(), path_).error().code(), Errc::kInvalid);

  EXPECT_EQ(content(), before);
}

TEST_F(CurveKeysTest, SaysNotFoundWhenThereIsNoFile) {
  EXPECT_EQ(load_curve_keys(path_).error().code(), Errc::kNotFound);
}

TEST_F(CurveKeysTest, RefusesAFileThatOthersMayRead) {
  ASSERT_TRUE(load_or_make_curve_keys(path_));
  ASSERT_EQ(::chmod(path_.c_str(), 0640), 0);

  EXPECT_EQ(load_curve_keys(path_).error().code(), Errc::kInvalid);
}

TEST_F(CurveKeysTest, RefusesEveryCutAndEveryMismatch) {
  ASSERT_TRUE(load_or_make_curve_keys(path_));
  const std::string whole = content();
  for (std::size_t size = 0; size < whole.size(); ++size) {
    overwrite(whole.substr(0, size));
    EXPECT_EQ(load_curve_keys(path_).error().code(), Errc::kCorrupt) << size;
  }
  const auto other = generate_curve_keys().value();
  overwrite("public " + other.public_key + "\n" + whole.substr(whole.find("secret ")));
  EXPECT_EQ(load_curve_keys(path_).error().code(), Errc::kCorrupt);
}

TEST_F(CurveKeysTest, SaysIoWhenTheFolderIsMissing) {
  EXPECT_EQ(load_or_make_curve_keys(folder_.file("absent/agent.key")).error().code(), Errc::kIo);
}

TEST_F(CurveKeysTest, TellsKeysFromOtherText) {
  EXPECT_FALSE(is_curve_key(""));
  EXPECT_FALSE(is_curve_key(std::string(63, 'a')));
  EXPECT_FALSE(is_curve_key(std::string(64, ' ')));
  EXPECT_FALSE(is_curve_key(std::string(64, 'A')));
  EXPECT_FALSE(is_curve_key(std::string("aaaa\0aaaa", 9) + std::string(55, 'a')));
}

TEST_F(CurveKeysTest, WritesAKeyAsWordsThatAShellLeavesAlone) {
  const auto keys = generate_curve_keys().value();
  EXPECT_EQ(keys.public_key.find_first_not_of("0123456789abcdef"), std::string::npos);
  EXPECT_EQ(curve_key_text(curve_key_bytes(keys.public_key)), keys.public_key);
}

}  // namespace
}  // namespace samepage
