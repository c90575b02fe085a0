// The promise under test: the agent's key is compared with the enrolled ones.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "core/curve_keys.h"
#include "tests/tools/scripted_placer.h"

namespace samepage::cli {
namespace {

using ::testing::HasSubstr;

TEST_F(SubcommandsTest, DoctorComparesTheAgentsKeyWithTheEnrolledOnes) {
  const auto keys = load_or_make_curve_keys(dir_.file("agent.key"));
  ASSERT_TRUE(keys);
  const std::vector<std::string> doctor = {"doctor",       "--json",
                                           "--libvirt",    "test:///default",
                                           "--agent-key",  dir_.file("agent.key"),
                                           "--placer-key", dir_.write("placer.pub", "none")};
  const auto body = std::make_shared<std::string>(R"({"hosts":[]})");
  routes_.push_back({"GET", "/api/v1/hosts", [this, body](const http::Request&) {
                       const std::lock_guard lock(mutex_);
                       return Result<http::Response>(http::Response{.body = *body});
                     }});

  const Output stranger = samepage(doctor);
  {
    const std::lock_guard lock(mutex_);
    *body = R"({"hosts":[{"name":"alpha","state":"up","public_key":")" + keys->public_key + "\"}]}";
  }
  const Output enrolled = samepage(doctor);

  EXPECT_EQ(stranger.exit_code, 1);
  EXPECT_THAT(stranger.out, HasSubstr("`samepage hosts enroll NAME " + keys->public_key + "`"));
  EXPECT_THAT(enrolled.out, HasSubstr(R"({"found":"as alpha, up","mend":"","name":"enrolled",)"
                                      R"("verdict":"ok"})"));
}

}  // namespace
}  // namespace samepage::cli
