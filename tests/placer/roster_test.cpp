// The promise under test: whatever agents report, the fleet that comes out is whole: one host for
// each VM, absurd reports refused with their fault named, the earlier state kept.

#include "placer/roster.h"

#include <limits>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/fakes/fake_clock.h"
#include "tests/placer/synthetic_fleet.h"

namespace samepage::placer {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

ReportedVm reported(const std::string& name, VmState state = VmState::kRunning) {
  return {.uuid = "uuid-" + name,
          .name = name,
          .state = state,
          .memory_bytes = 256U << 20U,
          .vcpus = 1,
          .cpu_seconds = 3.5,
          .sharing_domain = "default",
          .fingerprint = {},
          .fingerprint_age = std::chrono::milliseconds(0)};
}

ReportedVm scanned(const std::string& name) {
  ReportedVm vm = reported(name);
  vm.fingerprint = fingerprint_of({{.pool = name, .mib = 4}}).serialize();
  vm.fingerprint_age = std::chrono::seconds(7);
  return vm;
}

class RosterTest : public ::testing::Test {
 protected:
  RosterTest() {
    for (const char* host : {"host1", "host2"}) {
      EXPECT_TRUE(roster_.enroll(host));
      EXPECT_TRUE(roster_.hello(host, {.agent_version = "0.1.0",
                                       .hypervisor_version = "QEMU 7.2.22",
                                       .memory_bytes = 4ULL << 30U,
                                       .cpus = 4,
                                       .address = "10.0.0.1"}));
    }
  }

  std::vector<std::string> notes(const std::string& host, std::vector<ReportedVm> vms) {
    const auto taken = roster_.report(host, {.vms = std::move(vms), .memory = {}});
    return taken ? *taken : std::vector<std::string>{"refused: " + taken.error().message()};
  }

  std::string refusal(HostReport report) {
    const auto taken = roster_.report("host1", std::move(report));
    if (taken) return "taken";
    EXPECT_EQ(taken.error().code(), Errc::kInvalid);
    return taken.error().message();
  }

  const Vm* web1() {
    fleet_ = roster_.fleet();
    return fleet_.find_vm(VmId{"uuid-web1"});
  }

  fakes::FakeClock clock_;
  Roster roster_{{.report_age_max = std::chrono::seconds(30), .vms_per_host_max = 3}, clock_};
  Fleet fleet_;
};

TEST_F(RosterTest, MakesAFingerprintOfItsDelta) {
  const ReportedVm first = scanned("web1");
  ReportedVm second = reported("web1");
  const auto base = fingerprinter::Fingerprint::parse(first.fingerprint).value();
  const auto next = fingerprint_of({{.pool = "web1", .mib = 3}, {.pool = "more", .mib = 1}});
  second.fingerprint_delta = next.delta_since(base);
  ASSERT_FALSE(second.fingerprint_delta.empty());
  EXPECT_THAT(notes("host1", {first}), IsEmpty());
  EXPECT_THAT(notes("host1", {second}), IsEmpty());

  EXPECT_FALSE(roster_.wants_whole("host1"));
  EXPECT_EQ(web1()->fingerprint->version(), next.version());
  EXPECT_EQ(web1()->fingerprint_age, std::chrono::seconds(0));
}

TEST_F(RosterTest, ADeltaForAFingerprintThatIsNotHereLeavesTheOldOneOld) {
  ReportedVm second = reported("web1");
  const auto base = fingerprint_of({{.pool = "lost", .mib = 4}});
  const auto next = fingerprint_of({{.pool = "lost", .mib = 3}, {.pool = "more", .mib = 1}});
  second.fingerprint_delta = next.delta_since(base);
  EXPECT_THAT(notes("host1", {second}), IsEmpty());
  EXPECT_TRUE(roster_.wants_whole("host1"));
  EXPECT_EQ(web1()->fingerprint, nullptr);

  EXPECT_THAT(notes("host1", {scanned("web1")}), IsEmpty());
  EXPECT_FALSE(roster_.wants_whole("host1"));
  clock_.advance(std::chrono::seconds(5));
  EXPECT_THAT(notes("host1", {second}), IsEmpty());
  EXPECT_TRUE(roster_.wants_whole("host1"));
  EXPECT_EQ(web1()->fingerprint_age, std::chrono::seconds(12));

  second.fingerprint_delta.resize(9);
  EXPECT_THAT(notes("host1", {second}), ElementsAre(HasSubstr("cannot be read")));
  EXPECT_EQ(web1()->fingerprint_age, std::chrono::seconds(12));
}

TEST_F(RosterTest, DescribesWhatAgentsReported) {
  EXPECT_THAT(notes("host1", {scanned("web1")}), IsEmpty());
  clock_.advance(std::chrono::seconds(5));

  const Fleet fleet = roster_.fleet();

  ASSERT_EQ(fleet.hosts.size(), 2U);
  EXPECT_EQ(fleet.hosts[0].state, HostState::kUp);
  EXPECT_EQ(fleet.hosts[0].report_age, std::chrono::seconds(5));
  EXPECT_EQ(fleet.hosts[0].capacity_pages, 1U << 20U);
  EXPECT_EQ(fleet.hosts[1].state, HostState::kNeverSeen);
  ASSERT_EQ(fleet.vms.size(), 1U);
  EXPECT_EQ(fleet.vms[0].host, "host1");
  EXPECT_EQ(fleet.vms[0].memory_pages, 65'536U);
  ASSERT_NE(fleet.vms[0].fingerprint, nullptr);
  EXPECT_EQ(fleet.vms[0].fingerprint->counts().unique, 1024U);
  EXPECT_EQ(fleet.vms[0].fingerprint_age, std::chrono::seconds(12));
}

TEST_F(RosterTest, AHostIsDownWhenItsAgentIsGoneOrSilent) {
  notes("host1", {});
  notes("host2", {});

  roster_.lost("host1");
  EXPECT_EQ(roster_.fleet().hosts[0].state, HostState::kDown);
  EXPECT_EQ(roster_.fleet().hosts[1].state, HostState::kUp);
  clock_.advance(std::chrono::seconds(31));
  EXPECT_EQ(roster_.fleet().hosts[1].state, HostState::kDown);
  notes("host1", {});
  EXPECT_EQ(roster_.fleet().hosts[0].state, HostState::kUp);
}

TEST_F(RosterTest, AVmOnTwoHostsBelongsToTheOneWhereItRuns) {
  notes("host1", {reported("web1", VmState::kRunning)});
  EXPECT_THAT(notes("host2", {reported("web1", VmState::kPaused)}),
              ElementsAre("web1 is on host2 (paused) and on host1 (running)"));

  ASSERT_NE(web1(), nullptr);
  EXPECT_EQ(web1()->host, "host1");
  EXPECT_EQ(web1()->copy_on, "host2");
  EXPECT_FALSE(web1()->runs_twice);

  notes("host1", {reported("web1", VmState::kPaused)});
  notes("host2", {reported("web1", VmState::kRunning)});
  EXPECT_EQ(web1()->host, "host2");
  EXPECT_EQ(web1()->copy_on, "host1");
}

TEST_F(RosterTest, AVmThatTwoHostsRunIsFlaggedAndBelongsToTheNewerReport) {
  notes("host1", {reported("web1")});
  clock_.advance(std::chrono::seconds(1));
  EXPECT_THAT(notes("host2", {reported("web1")}), IsEmpty());

  EXPECT_EQ(web1()->host, "host2");
  EXPECT_TRUE(web1()->runs_twice);
  clock_.advance(std::chrono::seconds(1));
  EXPECT_THAT(notes("host1", {reported("web1")}), ElementsAre(HasSubstr("it must not run twice")));
  EXPECT_EQ(web1()->host, "host1");
  roster_.lost("host1");
  EXPECT_FALSE(web1()->runs_twice);
}

TEST_F(RosterTest, KeepsTheFingerprintOfAVmThatMoved) {
  notes("host1", {scanned("web1")});
  clock_.advance(std::chrono::seconds(10));
  notes("host1", {});
  EXPECT_EQ(web1(), nullptr);
  notes("host2", {reported("web1")});

  ASSERT_NE(web1(), nullptr);
  EXPECT_NE(web1()->fingerprint, nullptr);
  EXPECT_EQ(web1()->fingerprint_age, std::chrono::seconds(17));
}

// Whatever a report costs, it must not cost as much as the fleet is large: ten thousand come a
// minute.
TEST(LargeRoster, TakesTheReportsOfTenThousandHosts) {
  constexpr int kHosts = 10'000;
  constexpr int kVms = 10;
  const fakes::FakeClock clock;
  Roster roster({}, clock);
  for (int host = 0; host < kHosts; ++host) {
    const std::string name = "host" + std::to_string(host);
    ASSERT_TRUE(roster.enroll(name));
    HostReport report;
    for (int i = 0; i < kVms; ++i) {
      report.vms.push_back(reported(std::to_string(host) + "-" + std::to_string(i)));
    }
    ASSERT_TRUE(roster.report(name, report));
  }
  const Fleet fleet = roster.fleet();
  EXPECT_EQ(fleet.hosts.size(), kHosts);
  EXPECT_EQ(fleet.vms.size(), kHosts * kVms);
  EXPECT_THAT(roster.enroll("one-more").error().message(), HasSubstr("10000 hosts"));
}

TEST_F(RosterTest, ForgetsTheFingerprintOfAVmThatStaysAway) {
  notes("host1", {scanned("web1")});
  notes("host1", {});
  clock_.advance(std::chrono::seconds(601));
  notes("host1", {});
  notes("host2", {reported("web1")});
  EXPECT_EQ(web1()->fingerprint, nullptr);
}

TEST_F(RosterTest, NotesAnUnknownDomainAndTakesNoFingerprintFromIt) {
  ReportedVm vm = scanned("web1");
  vm.sharing_domain = "acme";
  EXPECT_THAT(notes("host1", {vm}), ElementsAre(HasSubstr("unknown sharing domain \"acme\"")));
  EXPECT_EQ(web1()->fingerprint, nullptr);

  roster_.set_domains({"default", "acme"});
  EXPECT_THAT(notes("host1", {vm}), IsEmpty());
  EXPECT_NE(web1()->fingerprint, nullptr);
}

TEST_F(RosterTest, NotesAFingerprintThatCannotBeRead) {
  ReportedVm vm = scanned("web1");
  vm.fingerprint.resize(vm.fingerprint.size() / 2);
  EXPECT_THAT(notes("host1", {vm}),
              ElementsAre(HasSubstr("the fingerprint of web1 cannot be read")));
  EXPECT_EQ(web1()->fingerprint, nullptr);
}

TEST_F(RosterTest, RefusesAbsurdReportsAndKeepsTheEarlierOne) {
  notes("host1", {reported("web1")});
  const auto with = [](auto change) {
    ReportedVm vm = reported("bad");
    change(vm);
    return HostReport{.vms = {vm}, .memory = {}};
  };

  EXPECT_THAT(refusal({.vms = std::vector<ReportedVm>(4, reported("bad")), .memory = {}}),
              HasSubstr("reports 4 VMs; 3 are the limit"));
  EXPECT_THAT(refusal({.vms = std::vector<ReportedVm>(2, reported("bad")), .memory = {}}),
              HasSubstr("has the VM uuid-bad twice"));
  EXPECT_THAT(refusal({.vms = {}, .memory = {.resident_pages = 1ULL << 60U}}),
              HasSubstr("more pages than a host can have"));
  EXPECT_THAT(refusal(with([](ReportedVm& vm) { vm.memory_bytes = 1ULL << 63U; })),
              HasSubstr("bad has 9223372036854775808 bytes of memory"));
  EXPECT_THAT(refusal(with([](ReportedVm& vm) { vm.memory_bytes = 0; })), HasSubstr("0 bytes"));
  EXPECT_THAT(refusal(with([](ReportedVm& vm) { vm.uuid.clear(); })), HasSubstr("without a UUID"));
  EXPECT_THAT(refusal(with([](ReportedVm& vm) { vm.name.assign(300, 'x'); })),
              HasSubstr("name has 300 bytes"));
  EXPECT_THAT(refusal(with([](ReportedVm& vm) { vm.name = "a\nb"; })),
              HasSubstr("control characters"));
  EXPECT_THAT(refusal(with([](ReportedVm& vm) {
                vm.cpu_seconds = std::numeric_limits<double>::quiet_NaN();
              })),
              HasSubstr("impossible CPU time"));
  EXPECT_THAT(refusal(with([](ReportedVm& vm) { vm.cpu_seconds = -1; })),
              HasSubstr("impossible CPU time"));
  EXPECT_NE(web1(), nullptr);
}

TEST_F(RosterTest, RefusesFactsThatCannotBe) {
  const auto fault = [&](auto change) {
    HostFacts facts;
    facts.memory_bytes = 4ULL << 30U;
    facts.cpus = 4;
    change(facts);
    const auto taken = roster_.hello("host1", facts);
    return taken ? "taken" : taken.error().message();
  };
  EXPECT_THAT(fault([](HostFacts& facts) { facts.cpus = UINT32_MAX; }),
              HasSubstr("offers 4294967295 processors"));
  EXPECT_THAT(fault([](HostFacts& facts) { facts.link_bytes_s = UINT64_MAX; }),
              HasSubstr("a link of 18446744073709551615 bytes a second"));
  EXPECT_THAT(fault([](HostFacts& facts) { facts.memory_bytes = UINT64_MAX; }),
              HasSubstr("bytes of memory"));
  EXPECT_EQ(roster_.fleet().find_host("host1")->cpus, 4U);
}

TEST_F(RosterTest, SurvivesAnAbsurdAge) {
  ReportedVm vm = scanned("web1");
  vm.fingerprint_age = std::chrono::milliseconds::max();
  EXPECT_THAT(notes("host1", {vm}), IsEmpty());
  EXPECT_GT(web1()->fingerprint_age, std::chrono::hours(24));
  vm.fingerprint_age = std::chrono::milliseconds::min();
  EXPECT_THAT(notes("host1", {vm}), IsEmpty());
  EXPECT_EQ(web1()->fingerprint_age, std::chrono::milliseconds(0));
}

TEST_F(RosterTest, KnowsOnlyEnrolledHosts) {
  EXPECT_EQ(roster_.report("host9", {}).error().code(), Errc::kNotFound);
  EXPECT_EQ(roster_.hello("host9", {}).error().code(), Errc::kNotFound);
  EXPECT_EQ(roster_.forget("host9").error().code(), Errc::kNotFound);
  roster_.lost("host9");
  EXPECT_EQ(roster_.enroll("").error().code(), Errc::kInvalid);
  HostFacts tiny;
  tiny.memory_bytes = 7;
  EXPECT_EQ(roster_.hello("host1", tiny).error().code(), Errc::kInvalid);
}

TEST_F(RosterTest, BelievesSoundNumbersOfBootsAtOnceOnly) {
  const auto boots_after = [&](std::uint32_t said) {
    HostFacts facts;
    facts.memory_bytes = 4ULL << 30U;
    facts.boots_at_once = said;
    EXPECT_TRUE(roster_.hello("host1", facts));
    return roster_.fleet().find_host("host1")->boots_at_once;
  };
  EXPECT_EQ(boots_after(0), 1U);
  EXPECT_EQ(boots_after(8), 8U);
  EXPECT_EQ(boots_after(4'000'000'000), 64U);
}

TEST_F(RosterTest, ForgetsOnlyAHostWithoutVms) {
  notes("host1", {reported("web1")});
  EXPECT_EQ(roster_.forget("host1").error().code(), Errc::kInvalid);
  notes("host1", {});
  EXPECT_TRUE(roster_.forget("host1"));
  EXPECT_EQ(roster_.fleet().hosts.size(), 1U);
}

TEST_F(RosterTest, FindsVmsByNameOrUuid) {
  notes("host1", {reported("web1")});
  ReportedVm namesake = reported("web1");
  namesake.uuid = "another";
  notes("host2", {namesake});
  const Fleet fleet = roster_.fleet();

  EXPECT_EQ((*fleet.named("another"))->host, "host2");
  EXPECT_EQ(fleet.named("web1").error().code(), Errc::kInvalid);
  EXPECT_EQ(fleet.named("web2").error().code(), Errc::kNotFound);
}

TEST_F(RosterTest, TurnsCountersIntoUsage) {
  ReportedVm vm = reported("web1");
  const auto report = [&](int second) {
    HostReport made{.vms = {vm}, .memory = {.distinct_frames = 1U << 19U}};
    made.clock = std::chrono::seconds(second);
    made.cpu_stalled = 0.25;
    return *roster_.report("host1", made);
  };
  vm.cpu_seconds = 10;
  report(100);
  vm.cpu_seconds = 15;
  vm.network_bytes = 1'000;
  report(110);

  const Vm* const known = web1();
  ASSERT_NE(known->usage, nullptr);
  EXPECT_DOUBLE_EQ(known->usage->series[0].latest(), 0.5);
  EXPECT_DOUBLE_EQ(known->usage->series[1].latest(), 100);
  const Host& host = *fleet_.find_host("host1");
  EXPECT_DOUBLE_EQ(host.usage->series[0].latest(), 0.125);
  EXPECT_NEAR(host.usage->series[3].latest(), 0.5, 1e-6);
  EXPECT_DOUBLE_EQ(host.usage->pressure.cpu_stalled, 0.25);
  EXPECT_EQ(roster_.take_samples().size(), 2U);
  EXPECT_TRUE(roster_.take_samples().empty());
}

TEST_F(RosterTest, KeepsEachCountOfAVmsMemoryOnce) {
  ReportedVm vm = reported("web1");
  vm.memory = {.own = 100, .of_template = 5'000, .ksm = 7};
  const auto report = [&](int second) {
    HostReport made{.vms = {vm}, .memory = {}, .counted = std::chrono::seconds(second)};
    return *roster_.report("host1", made);
  };
  report(100);
  const auto counted_at = clock_.today();
  clock_.advance(std::chrono::seconds(60));
  report(100);  // A report in between repeats it.
  EXPECT_EQ(web1()->memory, vm.memory);
  vm.memory = {.own = 2'000, .of_template = 3'100, .ksm = 7};
  report(160);
  vm.memory = std::nullopt;
  report(220);

  const auto samples = roster_.take_memory_samples();

  ASSERT_EQ(samples.size(), 2U);
  EXPECT_EQ(samples[0].vm.uuid, "uuid-web1");
  EXPECT_EQ(samples[0].host, "host1");
  EXPECT_EQ(samples[0].at, counted_at);
  EXPECT_EQ(samples[0].shares.of_template, 5'000U);
  EXPECT_EQ(samples[1].shares.own, 2'000U);
  EXPECT_TRUE(roster_.take_memory_samples().empty());
  EXPECT_FALSE(web1()->memory);
}

TEST_F(RosterTest, AHostsMemoryIsOfNowUntilItsVmsAreOthersThanWereCounted) {
  const auto report = [&](std::vector<ReportedVm> vms, int second) {
    HostReport made{.vms = std::move(vms), .memory = {}, .counted = std::chrono::seconds(second)};
    EXPECT_TRUE(roster_.report("host1", made));
    return roster_.fleet().find_host("host1")->memory_is_of_now;
  };
  EXPECT_TRUE(report({reported("web1")}, 100));
  EXPECT_FALSE(report({reported("web1"), reported("web2")}, 100));
  EXPECT_TRUE(report({reported("web1"), reported("web2")}, 101));
}

TEST_F(RosterTest, LeavesOutMemoryThatCannotBe) {
  ReportedVm vm = reported("web1");
  constexpr std::uint64_t kAll = 65'536;
  constexpr auto kMost = std::numeric_limits<std::uint64_t>::max();
  for (const fingerprinter::MemoryShares lie : {fingerprinter::MemoryShares{.own = kMost},
                                                {.own = 1, .of_template = kMost},
                                                {.own = 1, .of_template = 1, .ksm = kMost},
                                                {.own = kAll, .of_template = 65}}) {
    vm.memory = lie;
    EXPECT_THAT(notes("host1", {vm}), ElementsAre(HasSubstr("web1 has more pages than memory")));
    EXPECT_FALSE(web1()->memory);
  }
  vm.memory = {.own = kAll, .of_template = 2};  // QEMU may have a little more.
  EXPECT_THAT(notes("host1", {vm}), IsEmpty());
}

TEST_F(RosterTest, UsageOnAnotherClassOfHostsStartsAnew) {
  for (const char* host : {"host1", "host2"}) {
    HostFacts facts;
    facts.memory_bytes = 4ULL << 30U;
    facts.hardware = host;
    ASSERT_TRUE(roster_.hello(host, facts));
  }
  ReportedVm vm = reported("web1");
  const auto report = [&](const char* host, int second, double cpu_seconds) {
    vm.cpu_seconds = cpu_seconds;
    HostReport made{.vms = {vm}, .memory = {}};
    made.clock = std::chrono::seconds(second);
    ASSERT_TRUE(roster_.report(host, made));
  };
  report("host1", 100, 0);
  report("host1", 110, 1);
  report("host1", 120, 2);
  EXPECT_EQ(web1()->usage->series[0].size(), 2U);
  ASSERT_TRUE(roster_.report("host1", {.vms = {}, .memory = {}}));

  report("host2", 500, 0);
  report("host2", 510, 5);

  ASSERT_EQ(web1()->usage->series[0].size(), 1U);
  EXPECT_DOUBLE_EQ(web1()->usage->series[0].latest(), 0.5);
}

TEST_F(RosterTest, LeavesOutCountersAndPressureThatCannotBe) {
  ReportedVm vm = reported("web1");
  const auto notes_at = [&](int second, double stalled) {
    HostReport made{.vms = {vm}, .memory = {}};
    made.clock = std::chrono::seconds(second);
    made.memory_stalled = stalled;
    return *roster_.report("host1", made);
  };
  notes_at(100, 0);
  vm.cpu_seconds = 1e6;  // A million cores.
  EXPECT_THAT(notes_at(101, 0), ElementsAre(HasSubstr("web1 reports counters that cannot be")));
  vm.cpu_seconds = 1;  // Fell: started anew, or a lie.
  EXPECT_THAT(notes_at(102, 0), ElementsAre(HasSubstr("web1 reports counters")));
  EXPECT_EQ(web1()->usage, nullptr);
  vm.cpu_seconds = 1.5;
  for (const double lie : {-1.0, 7.0, std::numeric_limits<double>::quiet_NaN()}) {
    EXPECT_THAT(notes_at(static_cast<int>(200 + vm.cpu_seconds), lie),
                ElementsAre(HasSubstr("reports a pressure of")));
    vm.cpu_seconds += 1;
  }
}

TEST_F(RosterTest, AnApplicationsFigureCountsWhileItIsFresh) {
  notes("host1", {reported("web1")});
  EXPECT_EQ(roster_.tell(VmId{"uuid-none"}, {}).error().code(), Errc::kNotFound);
  ASSERT_TRUE(roster_.tell(VmId{"uuid-web1"}, {.what = "response_ms", .value = 300, .limit = 200}));
  web1();
  EXPECT_EQ(fleet_.find_host("host1")->usage->pressure.violation,
            "web1 says that its response_ms is 300, above its limit of 200");
  clock_.advance(std::chrono::minutes(6));
  web1();
  EXPECT_EQ(fleet_.find_host("host1")->usage, nullptr);
}

TEST_F(RosterTest, RestoresWhatWasKnownBeforeARestart) {
  roster_.restore({{.subject = "host1", .at = {}, .is_host = true, .cpu = 0.4, .memory = 0.7},
                   {.subject = "uuid-web1", .at = {}, .cpu = 1.5}});
  notes("host1", {reported("web1")});
  EXPECT_DOUBLE_EQ(web1()->usage->series[0].latest(), 1.5);
  EXPECT_NEAR(fleet_.find_host("host1")->usage->series[3].latest(), 0.7, 1e-6);
}

}  // namespace
}  // namespace samepage::placer
