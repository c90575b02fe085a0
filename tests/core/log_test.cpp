// The promise under test: one event is one line of stderr, below the chosen level nothing is
// written, and no argument can forge a line.

#include "core/log.h"

#include <string>

#include <gtest/gtest.h>

namespace samepage {
namespace {

template <class Writer>
std::string captured(Writer&& write) {
  ::testing::internal::CaptureStderr();
  write();
  return ::testing::internal::GetCapturedStderr();
}

TEST(LogTest, WritesOneLineWithItsLevel) {
  const std::string line = captured([] { log_info("host enrolled host={} vms={}", "a", 3); });

  EXPECT_NE(line.find(" info host enrolled host=a vms=3\n"), std::string::npos) << line;
}

TEST(LogTest, WritesNothingBelowItsLevel) {
  ASSERT_TRUE(set_up_log("error"));

  EXPECT_EQ(captured([] { log_warning("too quiet"); }), "");
  EXPECT_NE(captured([] { log_error("loud"); }), "");

  ASSERT_TRUE(set_up_log("info"));
}

TEST(LogTest, EscapesWhatWouldForgeALine) {
  const std::string line = captured([] { log_info("name={}", "web\n2024 error forged\x1b[2J"); });

  EXPECT_EQ(line.find('\n'), line.size() - 1);
  EXPECT_NE(line.find("web\\x0a2024 error forged\\x1b[2J"), std::string::npos) << line;
}

TEST(LogTest, RefusesAnUnknownLevel) {
  EXPECT_EQ(set_up_log("loud").error().code(), Errc::kInvalid);
}

}  // namespace
}  // namespace samepage
