#include <array>

#include <gtest/gtest.h>

#include "migrator/stretch_rebuilder.h"

namespace samepage::migrator {
namespace {

pagecache::WantedPage found(std::uint32_t source, std::uint64_t page, std::uint64_t number) {
  static std::array<std::byte, kPageSize> buffer;
  return {
      .hash = {}, .number = number, .to = buffer, .found = true, .source = {source}, .page = page};
}

TEST(BaseChoiceTest, ChoosesWhatLiesInMemoryAlike) {
  BaseChoice choice(std::nullopt);
  BaseChoice scattered(std::nullopt);
  bool chosen = false;
  for (std::uint64_t i = 0; i < BaseChoice::kPagesMin; ++i) {
    const bool alike = i % 10 < 7;
    const std::array page{found(alike ? 3 : 4, i, i)};
    chosen = choice.saw(page);
    const std::array elsewhere{found(3, alike ? i + 1 : i, i)};
    EXPECT_FALSE(scattered.saw(elsewhere));
  }
  EXPECT_TRUE(chosen);
  EXPECT_EQ(choice.chosen(), pagecache::SourceId{3});
  EXPECT_EQ(scattered.chosen(), std::nullopt);
  EXPECT_EQ(BaseChoice(pagecache::SourceId{9}).chosen(), pagecache::SourceId{9});
}

}  // namespace
}  // namespace samepage::migrator
