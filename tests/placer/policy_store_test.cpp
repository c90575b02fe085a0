// The promise under test: what an administrator set holds in every connection and after a restart,
// what cannot be is refused at the door, and the history of usage stays bounded.

#include "placer/policy_store.h"

#include <cmath>
#include <functional>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "placer/registry.h"
#include "placer/schema.h"
#include "placer/usage_store.h"
#include "tests/core/temporary_folder.h"
#include "tests/fakes/fake_clock.h"

namespace samepage::placer {
namespace {

using ::testing::HasSubstr;

class PolicyStoreTest : public ::testing::Test {
 protected:
  PolicyStoreTest() : database_(*Database::open({.path = folder_.file("placer.db")})) {
    EXPECT_TRUE(migrate_schema(database_));
  }

  TemporaryFolder folder_;
  fakes::FakeClock clock_;
  Database database_;
  PolicyStore store_{database_};
};

TEST_F(PolicyStoreTest, KeepsRulesAsTheyWereGiven) {
  const Rule pin{Rule::Kind::kPin, "db-hosts", {"db1", "db2"}, {"host1", "rack=a"}};
  ASSERT_TRUE(store_.add(pin));
  EXPECT_EQ(store_.add(pin).error().code(), Errc::kInvalid);

  Database other = *Database::open({.path = folder_.file("placer.db")});
  const std::vector<Rule> rules = *PolicyStore(other).rules();

  ASSERT_EQ(rules.size(), 1U);
  EXPECT_EQ(rules[0].kind, Rule::Kind::kPin);
  EXPECT_EQ(rules[0].vms, pin.vms);
  EXPECT_EQ(rules[0].hosts, pin.hosts);
  EXPECT_TRUE(store_.remove("db-hosts"));
  EXPECT_EQ(store_.remove("db-hosts").error().code(), Errc::kNotFound);
  EXPECT_TRUE(store_.rules()->empty());
}

TEST_F(PolicyStoreTest, RefusesRulesThatSayNothing) {
  EXPECT_THAT(store_.add({Rule::Kind::kPin, "p", {"vm"}, {}}).error().message(),
              HasSubstr("names no host"));
  EXPECT_THAT(store_.add({Rule::Kind::kApart, "a b", {"vm"}, {}}).error().message(),
              HasSubstr("a rule's name"));
}

TEST_F(PolicyStoreTest, LabelsBelongToEnrolledHosts) {
  EXPECT_EQ(store_.set_label("host1", "rack", "a").error().code(), Errc::kNotFound);
  Registry registry({}, database_, clock_);
  ASSERT_TRUE(registry.enroll("host1", std::string(64, 'a')));

  ASSERT_TRUE(store_.set_label("host1", "rack", "a"));
  EXPECT_EQ((*store_.labels())["host1"]["rack"], "a");
  ASSERT_TRUE(store_.set_label("host1", "rack", ""));
  EXPECT_TRUE(store_.labels()->empty());
  EXPECT_EQ(store_.set_label("host1", "a=b", "x").error().code(), Errc::kInvalid);
}

TEST_F(PolicyStoreTest, ReplacesAllRulesOrNone) {
  const Rule first{Rule::Kind::kIgnore, "first", {"vm1"}, {}};
  const Rule second{Rule::Kind::kIgnore, "second", {"vm2"}, {}};
  ASSERT_TRUE(store_.add(first));

  EXPECT_EQ(store_.replace({second, second}).error().code(), Errc::kInvalid);
  ASSERT_EQ(store_.rules()->size(), 1U);
  EXPECT_EQ(store_.rules()->front().name, "first");
  ASSERT_TRUE(store_.replace({second}));
  ASSERT_EQ(store_.rules()->size(), 1U);
  EXPECT_EQ(store_.rules()->front().vms, second.vms);
}

TEST_F(PolicyStoreTest, KeepsOneOverheadModelForTwoClassesAndAResource) {
  ClassModel model{.source = "new", .target = "old", .constant = 0.5, .factors = {2, 0, -1e-9}};
  const std::int64_t first = store_.keep_class_model(model)->id;
  model.constant = 0.25;
  model.median_error_pct = 4;
  const std::int64_t second = store_.keep_class_model(model)->id;

  const std::vector<ClassModel> kept = *store_.class_models();
  ASSERT_EQ(kept.size(), 1U);
  EXPECT_EQ(kept[0].id, second);
  EXPECT_DOUBLE_EQ(kept[0].constant, 0.25);
  EXPECT_EQ(kept[0].factors, model.factors);
  EXPECT_EQ(store_.remove_class_model(first).error().code(), Errc::kNotFound);
  EXPECT_TRUE(store_.remove_class_model(second));
  EXPECT_TRUE(store_.class_models()->empty());
}

TEST_F(PolicyStoreTest, RefusesOverheadModelsThatCannotBe) {
  const ClassModel sound{.source = "new", .target = "old"};
  for (const auto& spoil : std::vector<std::function<void(ClassModel&)>>{
           [](ClassModel& model) { model.target = "new"; },
           [](ClassModel& model) { model.source = ""; },
           [](ClassModel& model) { model.source = std::string(256, 'x'); },
           [](ClassModel& model) { model.constant = std::nan(""); },
           [](ClassModel& model) { model.factors[1] = INFINITY; },
           [](ClassModel& model) { model.of = Resource::kMemory; }}) {
    ClassModel model = sound;
    spoil(model);
    EXPECT_EQ(store_.keep_class_model(model).error().code(), Errc::kInvalid);
  }
}

TEST_F(PolicyStoreTest, ThePolicyIsManualUntilSomebodySaysSo) {
  EXPECT_EQ(store_.policy()->mode, Mode::kManual);
  Policy policy;
  policy.mode = Mode::kAutomatic;
  policy.goal = Goal::kHosts;
  policy.every = std::chrono::seconds(5);
  ASSERT_TRUE(store_.set_policy(policy));
  EXPECT_EQ(store_.policy()->mode, Mode::kAutomatic);
  EXPECT_EQ(store_.policy()->goal, Goal::kHosts);
  EXPECT_EQ(store_.policy()->every, std::chrono::seconds(5));
  policy.every = std::chrono::seconds(0);
  EXPECT_EQ(store_.set_policy(policy).error().code(), Errc::kInvalid);
}

TEST_F(PolicyStoreTest, UsageIsBoundedByAgeAndComesBackInOrder) {
  UsageStore usage({.age_max = std::chrono::hours(1)}, database_, clock_);
  for (int i = 0; i < 4; ++i) {
    ASSERT_TRUE(
        usage.add({{.subject = "host1", .at = clock_.today(), .is_host = true, .cpu = 0.1 * i},
                   {.subject = "vm", .at = clock_.today(), .cpu = std::nan("")}}));
    clock_.advance(std::chrono::minutes(29));
  }

  const std::vector<UsageSample> kept = *usage.all();

  ASSERT_EQ(kept.size(), 3U);
  EXPECT_DOUBLE_EQ(kept[0].cpu, 0.1);
  EXPECT_DOUBLE_EQ(kept[2].cpu, 0.1 * 3);
  EXPECT_TRUE(kept[0].is_host);
  EXPECT_EQ(kept[0].subject, "host1");
}

}  // namespace
}  // namespace samepage::placer
