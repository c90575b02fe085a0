// The promise under test: events are shown as sentences or as the placer tells them, and followed
// until Ctrl-C.

#include <thread>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/tools/scripted_placer.h"

namespace samepage::cli {
namespace {

using ::testing::ElementsAre;

TEST_F(SubcommandsTest, EventsPrintsSentencesOrThePlacersLines) {
  const std::string line =
      R"({"id":41,"at":"2026-01-02T03:04:05Z","kind":"x","text":"alpha is up"})";
  routes_.push_back(
      {"GET", "/api/v1/events", [this, line](const http::Request& request) {
         note("since " + request.query.at("since") + " follow " + request.query.at("follow"), "");
         return Result<http::Response>(http::Response{.body = line + "\n\n"});
       }});

  EXPECT_EQ(samepage({"events"}).out, "41  2026-01-02T03:04:05Z  alpha is up\n");
  EXPECT_EQ(samepage({"events", "--since", "7", "--json"}).out, line + "\n");
  EXPECT_THAT(requests(), ElementsAre("since 0 follow 0", "since 7 follow 0"));
}

TEST_F(PlanRunTest, FollowedEventsEndWithCtrlC) {
  set_state("running");
  start();
  ChildProcess events(command({"events", "--follow"}), environment());
  while (requests().empty()) std::this_thread::yield();

  events.interrupt();
  const Output output = events.finish();

  EXPECT_EQ(output.exit_code, 0) << output.err;
}

TEST_F(SubcommandsTest, AnEventThatIsNoneFails) {
  answer("GET /events", "garbage\n");

  EXPECT_EQ(samepage({"events"}).exit_code, 1);
}

}  // namespace
}  // namespace samepage::cli
