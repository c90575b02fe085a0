#include "migrator/batch_pace.h"

#include <gtest/gtest.h>

#include "migrator/batch.h"

namespace samepage::migrator {
namespace {

TEST(BatchPaceTest, SizesBatchesByWhatTheyTakeTheLink) {
  const auto size_at = [](double bytes_per_second, std::size_t wire_bytes) {
    BatchPace pace;
    EXPECT_EQ(pace.batch_bytes(), kBatchStreamBytesMax);
    for (int i = 0; i < 20; ++i) pace.sent(1'000'000, wire_bytes, bytes_per_second);
    return pace.batch_bytes();
  };
  EXPECT_EQ(size_at(0, 500'000), kBatchStreamBytesMax);
  EXPECT_EQ(size_at(1e6, 1'000'000), BatchPace::kBytesMin);
  EXPECT_NEAR(static_cast<double>(size_at(25e6, 200'000)), 625'000, 1000);
  EXPECT_EQ(size_at(25e6, 10'000), kBatchStreamBytesMax);
}

}  // namespace
}  // namespace samepage::migrator
