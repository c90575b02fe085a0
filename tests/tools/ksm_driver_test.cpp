// KSM is driven by what there is to merge, within its share of CPU time, and put back as it was,
// also by the agent after one that was killed.
#include "tools/samepaged/ksm_driver.h"

#include <filesystem>
#include <fstream>
#include <string>

#include <gtest/gtest.h>

#include "tests/core/temporary_folder.h"

namespace samepage::agent {
namespace {

double pages_per_s(const KsmPace& pace, double seconds_per_page) {
  const auto pages = static_cast<double>(pace.pages_to_scan);
  return pages / (static_cast<double>(pace.sleep_ms) / 1e3 + pages * seconds_per_page);
}

TEST(KsmPaceTest, ScansFastWhileSharingIsExpectedAndSlowlyAfter) {
  const KsmNews before{.mergeable_pages = 200'000, .expected_pages = 50'000};
  const KsmNews after{
      .mergeable_pages = 200'000, .expected_pages = 50'000, .achieved_pages = 49'500};

  const double fast = pages_per_s(ksm_pace(before, 0.2, 3e-6), 0);
  const double slow = pages_per_s(ksm_pace(after, 0.2, 3e-6), 0);

  EXPECT_NEAR(200'000 / fast, 10, 1);
  EXPECT_NEAR(200'000 / slow, 600, 30);
}

TEST(KsmPaceTest, TakesNoMoreCpuTimeThanItMay) {
  const KsmNews huge{.mergeable_pages = 500'000'000, .expected_pages = 100'000'000};
  for (const double share : {0.05, 0.2, 0.9}) {
    const double busy = pages_per_s(ksm_pace(huge, share, 3e-6), 3e-6) * 3e-6;
    EXPECT_LE(busy, share * 1.01);
    EXPECT_GT(busy, share * 0.5);
  }
  EXPECT_EQ(ksm_pace({}, 0.2, 3e-6).pages_to_scan, 1U);
}

class KsmDriverTest : public ::testing::Test {
 protected:
  KsmDriverTest() {
    std::filesystem::create_directory(options_.folder);
    put("run", "0");
    put("pages_to_scan", "100");
    put("sleep_millisecs", "20");
  }

  void put(const std::string& name, const std::string& text) {
    std::ofstream(options_.folder + "/" + name) << text << '\n';
  }

  std::string get(const std::string& name) {
    std::string text;
    std::ifstream(options_.folder + "/" + name) >> text;
    return text;
  }

  TemporaryFolder folder_;
  KsmDriver::Options options_{.folder = folder_.file("ksm"), .saved_file = folder_.file("saved")};
  const KsmNews news_{.mergeable_pages = 200'000, .expected_pages = 50'000};
};

TEST_F(KsmDriverTest, DrivesAndPutsBack) {
  {
    const auto driver = KsmDriver::create(options_).value();
    EXPECT_EQ(get("run"), "0");
    ASSERT_TRUE(driver->follow(news_));
    EXPECT_EQ(get("run"), "1");
    EXPECT_EQ(get("pages_to_scan"), "400");
  }
  EXPECT_EQ(get("run"), "0");
  EXPECT_EQ(get("pages_to_scan"), "100");
  EXPECT_FALSE(std::filesystem::exists(options_.saved_file));
}

TEST_F(KsmDriverTest, PutsBackWhatAKilledAgentFound) {
  const auto killed = KsmDriver::create(options_).value();  // Its end is after all that is seen.
  ASSERT_TRUE(killed->follow(news_));
  ASSERT_EQ(get("run"), "1");

  KsmDriver::create(options_).value().reset();

  EXPECT_EQ(get("run"), "0");
  EXPECT_EQ(get("sleep_millisecs"), "20");
}

TEST_F(KsmDriverTest, SaysWhyItCannot) {
  options_.saved_file = folder_.file("missing/saved");
  EXPECT_EQ(KsmDriver::create(options_).error().code(), Errc::kIo);
  options_.folder = folder_.file("none");
  EXPECT_EQ(KsmDriver::create(options_).error().code(), Errc::kNotFound);
}

}  // namespace
}  // namespace samepage::agent
