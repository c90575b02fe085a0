// The promise under test: a scenario is read as docs/formats/scenario.md says, or refused with the
// place where it is wrong.

#include "tools/samepage/scenario_reader.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "placer/simulator.h"

namespace samepage::cli {
namespace {

using ::testing::HasSubstr;

constexpr const char* kScenario = R"({
  "name": "two", "seed": 7, "interval_s": 5, "duration_s": 60, "cells": 1024, "cell_mib": 2,
  "hosts": [{"name": "host", "count": 2, "memory_mib": 1024, "cpus": 4, "network_bytes_s": 1e9}],
  "vms": [{"name": "web", "count": 3, "host": "host1", "arrives_every_s": 1,
           "memory": [{"own_mib": 20, "pools": {"debian": 40}}, {"at_s": 30, "own_mib": 60}],
           "cpu": {"base": 0.5, "noise": 0.1, "steps": [[30, 1]]}}],
  "models": [{"source": "fast", "target": "slow", "of": "disk", "constant": -1, "factors": {"cpu": 2}}],
  "rules": [{"name": "split", "kind": "apart", "vms": ["web1", "web2"]}],
  "events": [{"at_s": 40, "kind": "drain", "host": "host2"}],
  "policy": {"placement": "size", "hotspot": {"k": 2, "n": 3, "memory": 0.8}, "cooldown_s": 60}
})";

std::string fault(const std::string& text) {
  const auto read = read_scenario(text);
  return read ? "" : read.error().message();
}

TEST(ScenarioReader, ReadsWhatTheFormatSays) {
  const auto scenario = read_scenario(kScenario);

  ASSERT_TRUE(scenario) << scenario.error().message();
  EXPECT_EQ(scenario->words, 16U);
  ASSERT_EQ(scenario->hosts.size(), 2U);
  EXPECT_EQ(scenario->hosts[1].name, "host2");
  EXPECT_EQ(scenario->hosts[1].bin.capacity, 1024 * 256.0);
  ASSERT_EQ(scenario->vms.size(), 3U);
  EXPECT_EQ(scenario->vms[2].arrives_s, 2);
  EXPECT_EQ(scenario->vms[2].memory[1].own_pages, 60 * 256.0);
  EXPECT_EQ(scenario->policy.hotspot.k, 2U);
  ASSERT_EQ(scenario->class_models.size(), 1U);
  EXPECT_EQ(scenario->class_models[0].of, placer::Resource::kDisk);
  EXPECT_EQ(scenario->class_models[0].constant, -1);
  EXPECT_EQ(scenario->class_models[0].factors, (placer::Loads{2, 0, 0}));
  EXPECT_EQ(scenario->policy.cooldown.first, std::chrono::seconds(60));
  EXPECT_TRUE(placer::simulate(*scenario));
}

TEST(ScenarioReader, SaysWhereItIsWrong) {
  EXPECT_EQ(fault("nonsense"), "the scenario is no JSON");
  EXPECT_EQ(fault("[]"), "a scenario must be an object");
  EXPECT_EQ(fault("{}"), "hosts must name one at least");
  EXPECT_EQ(fault(R"({"hosts": [{"name": "h"}]})"), "hosts[0].memory_mib is missing");
  EXPECT_EQ(fault(R"({"hosts": [{"name": "h", "memory_mib": 9, "color": 1}]})"),
            "hosts[0].color is not known");
  EXPECT_THAT(fault(R"({"hosts": [{"name": "h", "memory_mib": -1}]})"),
              HasSubstr("hosts[0].memory_mib must be a number from"));
  EXPECT_THAT(fault(R"({"vms": [{"name": "v", "memory": [{"own_mib": "x"}]}]})"),
              HasSubstr("vms[0].memory[0].own_mib must be a number"));
  EXPECT_THAT(fault(R"({"rules": [{"name": "r", "kind": "near"}]})"), HasSubstr("rules[0].kind:"));
  EXPECT_EQ(fault(R"({"models": [{"source": "a", "target": "b", "of": "memory"}]})"),
            "models[0].of must be cpu, network or disk");
  EXPECT_EQ(fault(R"({"models": [{"source": "a", "target": "a"}]})"),
            "models[0] must name two classes of hardware, source and target");
  EXPECT_EQ(fault(R"({"cells": 100})"), "cells must be a number from 512.0 to 32768.0");
}

}  // namespace
}  // namespace samepage::cli
