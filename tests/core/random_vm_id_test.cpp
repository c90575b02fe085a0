// Random VM ids are UUIDs of version 4 in libvirt's text form, and differ.
#include "core/random_vm_id.h"

#include <regex>
#include <set>
#include <string>

#include <gtest/gtest.h>

namespace samepage {
namespace {

TEST(RandomVmIdTest, AreDifferentUuids) {
  const std::regex form("[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}");
  std::set<std::string> seen;

  for (int i = 0; i < 1'000; ++i) {
    const auto id = random_vm_id();
    ASSERT_TRUE(id) << id.error().message();
    EXPECT_TRUE(std::regex_match(id->uuid, form)) << id->uuid;
    seen.insert(id->uuid);
  }

  EXPECT_EQ(seen.size(), 1'000U);
}

}  // namespace
}  // namespace samepage
