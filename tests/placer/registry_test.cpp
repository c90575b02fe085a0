// The promise under test: one key is one host, and a sharing domain's secrets are made once.

#include "placer/registry.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "core/curve_keys.h"
#include "placer/schema.h"
#include "tests/core/temporary_folder.h"
#include "tests/fakes/fake_clock.h"

namespace samepage::placer {
namespace {

using ::testing::HasSubstr;

class RegistryTest : public ::testing::Test {
 protected:
  RegistryTest() { EXPECT_TRUE(migrate_schema(database_)); }

  std::string refusal(const std::string& name, const std::string& key) {
    const Result<EnrolledHost> host = registry_.enroll(name, key);
    if (host) return "enrolled";
    EXPECT_EQ(host.error().code(), Errc::kInvalid);
    return host.error().message();
  }

  TemporaryFolder folder_;
  fakes::FakeClock clock_;
  Database database_ =
      *Database::open({.path = folder_.file("placer.db"), .synchronous_full = false});
  Registry registry_{{.domains_max = 2}, database_, clock_};
  std::string key1_ = generate_curve_keys()->public_key;
  std::string key2_ = generate_curve_keys()->public_key;
};

TEST_F(RegistryTest, EnrollsAndForgetsHosts) {
  ASSERT_TRUE(registry_.enroll("host2", key2_));
  ASSERT_TRUE(registry_.enroll("host1", key1_));
  ASSERT_TRUE(registry_.enroll("host1", key1_));

  const std::vector<EnrolledHost> hosts = *registry_.hosts();
  ASSERT_EQ(hosts.size(), 2U);
  EXPECT_EQ(hosts[0].name, "host1");
  EXPECT_EQ(hosts[0].public_key, key1_);
  EXPECT_EQ(hosts[0].enrolled_at, clock_.today());
  ASSERT_TRUE(registry_.forget("host1"));
  EXPECT_EQ(registry_.hosts()->size(), 1U);
  EXPECT_EQ(registry_.forget("host1").error().code(), Errc::kNotFound);
}

TEST_F(RegistryTest, RefusesANameOrKeyThatIsTakenOrUnusable) {
  ASSERT_TRUE(registry_.enroll("host1", key1_));
  EXPECT_THAT(refusal("host1", key2_), HasSubstr("enrolled with another key"));
  EXPECT_THAT(refusal("host2", key1_), HasSubstr("this key is enrolled as host1"));
  EXPECT_THAT(refusal("host2", "short"), HasSubstr("64 hexadecimal digits"));
  EXPECT_THAT(refusal("a/b", key2_), HasSubstr("1 to 63 letters"));
  EXPECT_THAT(refusal("", key2_), HasSubstr("1 to 63 letters"));
}

TEST_F(RegistryTest, MakesADomainsSecretsOnce) {
  const SharingDomain first = *registry_.domain("default");
  const SharingDomain other = *registry_.domain("acme");
  const SharingDomain again = *Registry({}, database_, clock_).domain("default");

  EXPECT_EQ(first.name, "default");
  EXPECT_EQ(first.seed.value, again.seed.value);
  EXPECT_EQ(first.key.bytes, again.key.bytes);
  EXPECT_NE(first.seed.value, other.seed.value);
  EXPECT_NE(first.key.bytes, other.key.bytes);
  EXPECT_EQ(registry_.domains()->size(), 2U);
  EXPECT_EQ(registry_.domains()->front().name, "acme");
}

TEST_F(RegistryTest, BoundsTheNumberAndNamesOfDomains) {
  ASSERT_TRUE(registry_.domain("a"));
  ASSERT_TRUE(registry_.domain("b"));
  EXPECT_EQ(registry_.domain("c").error().code(), Errc::kInvalid);
  EXPECT_EQ(registry_.domain("x y").error().code(), Errc::kInvalid);
}

}  // namespace
}  // namespace samepage::placer
