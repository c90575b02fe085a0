// The promise under test: predicted sharing of sets of VMs agrees with the pages that they were
// made of, domain by domain.

#include "placer/sharing.h"

#include <gtest/gtest.h>

#include "tests/placer/synthetic_fleet.h"

namespace samepage::placer {
namespace {

double mib(double pages) {
  return pages / kPagesPerMib;
}

class SharingTest : public ::testing::Test {
 protected:
  SharingTest() {
    built_.host("host1", 1000);
    const std::vector<Ingredient> web{{.pool = "web", .mib = 60}, {.pool = "libc", .mib = 20}};
    built_.vm("web1", "host1", web).vm("web2", "host1", web).vm("web3", "host1", web);
    built_.vm("db1", "host1", {{.pool = "libc", .mib = 20}});
    built_.vm("other", "host1", web).last().sharing_domain = "acme";
  }

  std::vector<const Vm*> vms() { return built_.fleet().vms_on("host1"); }
  const Vm& vm(std::size_t number) { return built_.fleet().vms[number]; }

  SyntheticFleet built_;
};

TEST_F(SharingTest, SplitsWhatAHostShares) {
  const HostSharing sharing = predict_sharing(vms());

  // web three times, libc four times; the other domain's VM shares nothing. 5 MiB of zeros each,
  // of which each domain keeps one page.
  EXPECT_NEAR(mib(sharing.between.pages), 2 * 60 + 3 * 20, 4);
  EXPECT_LE(sharing.between.low, sharing.between.pages);
  EXPECT_GE(sharing.between.high, sharing.between.pages);
  EXPECT_EQ(sharing.zero, 5 * 5 * kPagesPerMib - 2);
  EXPECT_EQ(sharing.within, 0U);
  EXPECT_DOUBLE_EQ(sharing.total().pages,
                   sharing.between.pages + static_cast<double>(sharing.zero));
}

TEST_F(SharingTest, CountsTheUnionOnce) {
  EXPECT_NEAR(mib(static_cast<double>(PageUnion(vms()).footprint())),
              (60 + 20 + 4 * 30) + (60 + 20 + 30), 4);
}

TEST_F(SharingTest, FindsWhatAVmHasInCommonWithASet) {
  const std::vector<const Vm*> webs{&vm(0), &vm(1)};
  const PageUnion pages(webs);

  EXPECT_NEAR(mib(pages.common(vm(2)).pages), 80, 2);
  EXPECT_NEAR(mib(pages.common(vm(3)).pages), 20, 2);
  EXPECT_EQ(pages.common(vm(4)).pages, 0);
  EXPECT_NEAR(mib(pages.common(PageUnion(vms())).pages), 140, 4);
}

TEST_F(SharingTest, CountsAnUnscannedVmWithAllItsRam) {
  built_.fleet().vms[0].fingerprint = nullptr;
  const std::vector<const Vm*> one{&vm(0)};

  EXPECT_EQ(PageUnion(one).footprint(), 256 * kPagesPerMib);
  EXPECT_EQ(own_pages(vm(0)), 256 * kPagesPerMib);
  EXPECT_EQ(own_pages(vm(1)), 110 * kPagesPerMib);
  EXPECT_EQ(PageUnion(one).common(vm(1)).pages, 0);
}

TEST_F(SharingTest, OrdersPairsByWhatTheyHaveInCommon) {
  const std::vector<PairSharing> pairs = most_alike(built_.fleet(), 100);

  ASSERT_EQ(pairs.size(), 6U);
  EXPECT_NEAR(mib(pairs[0].common.pages), 80, 2);
  EXPECT_NEAR(mib(pairs[5].common.pages), 20, 2);
  EXPECT_EQ(most_alike(built_.fleet(), 2).size(), 2U);

  const std::optional<PairSharing> of_db = most_alike_with(vm(3), built_.fleet());
  ASSERT_TRUE(of_db);
  EXPECT_NEAR(mib(of_db->common.pages), 20, 2);
  EXPECT_FALSE(most_alike_with(vm(4), built_.fleet()));
}

TEST(Sharing, OfNothingIsNothing) {
  EXPECT_EQ(predict_sharing({}).total().pages, 0);
  EXPECT_EQ(PageUnion().footprint(), 0U);
  EXPECT_TRUE(most_alike({}, 10).empty());
}

}  // namespace
}  // namespace samepage::placer
