#include "migrator/stream_history.h"

#include <algorithm>
#include <memory>
#include <thread>

#include <gtest/gtest.h>

#include "migrator/stream_slab.h"

namespace samepage::migrator {
namespace {

StreamBytes stretch_of(std::size_t size, std::byte fill) {
  auto slab = std::make_shared<Slab>(size);
  std::ranges::fill(slab->bytes(), fill);
  return {.slab = slab, .bytes = slab->bytes()};
}

TEST(StreamHistoryTest, ReturnsPagesWithinReach) {
  StreamHistory history(3 * kPageSize);
  for (int i = 0; i < 8; ++i) history.add(stretch_of(kPageSize + 8, std::byte(i)));
  const std::uint64_t end = 8 * (kPageSize + 8);

  EXPECT_EQ(history.find(end - kPageSize).value().bytes[0], std::byte{7});
  EXPECT_EQ(history.find(end - kPageSize - 3).value().bytes[0], std::byte{7});
  EXPECT_EQ(history.find(5 * (kPageSize + 8)).value().bytes[0], std::byte{5});
  EXPECT_FALSE(history.find(5 * (kPageSize + 8) - 1));  // Not within one stretch.
  EXPECT_FALSE(history.find(0));                        // Forgotten.

  history.skip(kPageSize);
  EXPECT_FALSE(history.find(end));
  EXPECT_EQ(history.find(end - kPageSize).value().bytes[0], std::byte{7});
  history.skip(4 * kPageSize);
  history.skip(kPageSize);
  EXPECT_FALSE(history.find(end - kPageSize));
}

TEST(StreamHistoryTest, WaitsUntilItHasComeThatFar) {
  StreamHistory history(1U << 20U);
  std::thread later([&] { history.add(stretch_of(kPageSize, std::byte{1})); });
  EXPECT_EQ(history.find(0).value().bytes[9], std::byte{1});
  later.join();
  std::thread end([&] { history.close(); });
  EXPECT_FALSE(history.find(kPageSize));
  end.join();
}

}  // namespace
}  // namespace samepage::migrator
