#include "migrator/stream_slab.h"

#include <algorithm>
#include <stop_token>
#include <vector>

#include <gtest/gtest.h>
#include <sys/mman.h>

#include "core/page.h"

namespace samepage::migrator {
namespace {

TEST(SlabPoolTest, NoSlabRemembersWhatWasInIt) {
  {
    const auto slab = SlabPool::take();
    std::ranges::fill(slab->bytes(), std::byte{7});
  }
  const auto slab = SlabPool::take();
  EXPECT_TRUE(std::ranges::all_of(slab->bytes(), [](std::byte b) { return b == std::byte{0}; }));
}

TEST(SlabPoolTest, WarmsUpUntilItIsStopped) {
  std::stop_source stop;
  SlabPool::warm_up(2, stop.get_token());
  const auto slab = SlabPool::take();
  // Resident, though nobody has used it.
  std::vector<unsigned char> resident(slab->bytes().size() / kPageSize);
  ASSERT_EQ(::mincore(slab->bytes().data(), slab->bytes().size(), resident.data()), 0);
  EXPECT_TRUE(std::ranges::all_of(resident, [](unsigned char page) { return (page & 1U) != 0; }));

  stop.request_stop();
  SlabPool::warm_up(std::size_t{1} << 40U, stop.get_token());
}

}  // namespace
}  // namespace samepage::migrator
