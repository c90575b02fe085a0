#include "migrator/ordered_stage.h"

#include <thread>
#include <vector>

#include <gtest/gtest.h>

namespace samepage::migrator {
namespace {

TEST(OrderedStageTest, JobsComeOutInTheirOrder) {
  OrderedStage<int, int> stage(5);
  std::vector<std::jthread> workers;
  for (int i = 0; i < 3; ++i) {
    workers.emplace_back([&] {
      while (auto ticket = stage.take()) stage.finish(ticket->number, 2 * ticket->job);
    });
  }
  std::jthread source([&] {
    for (int i = 0; i < 5000; ++i) ASSERT_TRUE(stage.push(i));
    stage.end_input();
  });

  for (int i = 0; i < 5000; ++i) ASSERT_EQ(stage.pop(), 2 * i);
  EXPECT_EQ(stage.pop(), std::nullopt);
}

TEST(OrderedStageTest, ClosingEndsEveryWait) {
  OrderedStage<int, int> stage(1);
  ASSERT_TRUE(stage.push(1));
  EXPECT_EQ(stage.load().waiting, 1U);
  std::jthread pushing([&] { EXPECT_FALSE(stage.push(2)); });
  std::jthread popping([&] { EXPECT_EQ(stage.pop(), std::nullopt); });
  stage.close();

  EXPECT_FALSE(stage.take());
  stage.finish(0, 1);
}

}  // namespace
}  // namespace samepage::migrator
