// The promise under test: a model finds the metrics that matter, shrugs off outliers, tells its
// error on rows that it has not seen, and refuses tables that are none.

#include "placer/overhead_model.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "placer/packing/random.h"

namespace samepage::placer {
namespace {

using ::testing::HasSubstr;

TEST(OverheadModel, FindsTheMetricsThatMatterAmongOutliers) {
  Random random(5);
  UsageTable native{.columns = {"cpu_user", "net_packets", "noise"}, .rows = {}};
  std::vector<double> used;
  for (int i = 0; i < 200; ++i) {
    const double cpu = 100 * random.unit();
    const double packets = 10'000 * random.unit();
    native.rows.push_back({cpu, packets, random.unit()});
    used.push_back(4 + 1.2 * cpu + 0.003 * packets + random.unit());
    if (i % 20 == 0) used.back() += 200;  // A cron job.
  }

  const OverheadModel model = *OverheadModel::fit(native, used, {});

  EXPECT_LT(model.median_error_pct(), 5);
  EXPECT_NEAR(model.predict({50, 5'000, 0.5}), 4 + 60 + 15 + 0.5, 2);
  ASSERT_EQ(model.terms().size(), 2U);
}

TEST(OverheadModel, RefusesWhatIsNoTable) {
  EXPECT_EQ(UsageTable::parse("").error().code(), Errc::kInvalid);
  EXPECT_THAT(UsageTable::parse("a,b\n1,2\n3\n").error().message(), HasSubstr("3"));
  EXPECT_EQ(UsageTable::parse("a\nx\n").error().code(), Errc::kInvalid);
  const UsageTable table = *UsageTable::parse("a,b\n1,2\n3,4\n");
  EXPECT_EQ(table.rows.size(), 2U);
  EXPECT_EQ(OverheadModel::fit(table, {1, 2}, {}).error().code(), Errc::kInvalid);
}

}  // namespace
}  // namespace samepage::placer
