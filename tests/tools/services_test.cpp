// The placer's service and the agents understand each other over the real bus: who may join, what
// is reported of a host, and what is said when something cannot be done. The hypervisors are
// fakes; guests on real ones are the system tests' subject.
#include "fingerprinter/ksm_accounting.h"
#include "tests/fingerprinter/held_memory.h"
#include "tests/tools/services_harness.h"

namespace samepage {
namespace {

TEST_F(ServicesTest, AnEnrolledHostComesUpWithItsFactsAndItsVms) {
  const auto host1 = enrolled_host("host1");
  host1->hypervisor().add(vm("web"));
  host1->join();

  const placer::Host known = seen("host1", placer::HostState::kUp);

  EXPECT_EQ(known.hypervisor_version, "QEMU 7.2.22");
  EXPECT_EQ(known.address, "127.0.0.1");
  EXPECT_EQ(known.capacity_pages, (std::uint64_t{16} << 30U) / 4096);
  const placer::Fleet fleet = placer_->fleet();
  ASSERT_EQ(fleet.vms.size(), 1U);
  EXPECT_EQ(fleet.vms[0].name, "web");
  EXPECT_EQ(fleet.vms[0].host, "host1");
}

TEST_F(ServicesTest, HowAVmsMemoryWentIsKeptAlsoOfReportsThatWereAskedFor) {
  if (!fingerprinter::count_frames({})) GTEST_SKIP() << "needs CAP_SYS_ADMIN";
  using fingerprinter::HeldMemory;
  constexpr std::uint64_t kPages = 4'000;
  const auto write = [](std::uint64_t from, std::uint64_t to) {
    return [=](std::byte* ram) {
      for (std::uint64_t i = from; i < to; ++i) fingerprinter::write_page(ram, i, i + 1);
    };
  };
  HeldMemory guest(fingerprinter::Holding::kPrivateFile, kPages, write(0, 100), write(0, 2'000));
  const auto one = enrolled_host("one");
  VmInfo fork = guest.vm();
  fork.id = {kUuid};
  fork.name = "fork";
  one->hypervisor().add(fork);
  one->join();
  seen("one", placer::HostState::kUp);
  const auto scan = [&] {
    EXPECT_EQ(placer_->ask_hosts(Placer::Freshness::kScanned, clock_.now() + kPatience).hosts, 1U);
    return placer_->open_ledger().value()->memory().newest({kUuid}, 10).value();
  };

  const auto early = scan();
  guest.act();
  const auto late = scan();

  ASSERT_EQ(early.size(), 1U);
  EXPECT_EQ(early[0].shares.own, 100U);
  ASSERT_EQ(late.size(), 2U) << "the reports' own interval is an hour";
  EXPECT_EQ(late[0].shares.own, 2'000U);
  EXPECT_EQ(late[0].host, "one");
  EXPECT_EQ(late[1].at, early[0].at);
  EXPECT_EQ(placer_->fleet().vms.front().memory, late[0].shares);
}

TEST_F(ServicesTest, AVmWhoseMemoryCannotBeReadIsKnownWithoutAFingerprint) {
  const auto host1 = enrolled_host("host1");
  host1->hypervisor().add(vm("web"));  // Without a process.
  host1->join();
  seen("host1", placer::HostState::kUp);

  const placer::Fleet fleet = placer_->fleet();

  ASSERT_EQ(fleet.vms.size(), 1U);
  EXPECT_EQ(fleet.vms[0].fingerprint, nullptr);
}

TEST_F(ServicesTest, AStrangerStaysOutUntilItIsEnrolled) {
  const auto stranger = host("host1");
  stranger->join();
  EXPECT_TRUE(placer_->fleet().hosts.empty());

  ASSERT_TRUE(placer_->enroll("host1", stranger->public_key()));

  seen("host1", placer::HostState::kUp);
}

TEST_F(ServicesTest, AHostThatLeavesIsDownAndAScanNamesIt) {
  const auto host1 = enrolled_host("host1");
  const auto host2 = enrolled_host("host2");
  host1->join();
  host2->join();
  seen("host1", placer::HostState::kUp);
  seen("host2", placer::HostState::kUp);
  EXPECT_EQ(ask_all().hosts, 2U);

  host2->leave();
  seen("host2", placer::HostState::kDown);
  const Placer::ScanResult scan = ask_all();

  EXPECT_EQ(scan.hosts, 1U);
  ASSERT_EQ(scan.failed.size(), 1U);
  EXPECT_EQ(scan.failed[0].host, "host2");
}

TEST_F(ServicesTest, AHostJoinsAgainByItselfAfterThePlacerWasStartedAnew) {
  const auto host1 = enrolled_host("host1");
  host1->join();
  seen("host1", placer::HostState::kUp);

  placer_.reset();
  start_placer();

  seen("host1", placer::HostState::kUp);
}

TEST_F(ServicesTest, AHostThatHoldsVmsIsNotForgotten) {
  const auto host1 = enrolled_host("host1");
  host1->hypervisor().add(vm("web"));
  host1->join();
  seen("host1", placer::HostState::kUp);
  EXPECT_EQ(placer_->forget("host1").error().code(), Errc::kInvalid);

  host1->hypervisor().remove({kUuid});
  EXPECT_EQ(ask_all().hosts, 1U);

  EXPECT_TRUE(placer_->forget("host1"));
  EXPECT_TRUE(placer_->fleet().hosts.empty());
  EXPECT_EQ(placer_->forget("host1").error().code(), Errc::kNotFound);
}

TEST_F(ServicesTest, AnAgentWithoutThePlacersKeySaysWhereToGetIt) {
  const auto host1 = host("host1");
  std::filesystem::remove(host1->options().placer_key_file);
  SystemClock clock;

  const auto made =
      agent::Agent::create(host1->options(), {host1->hypervisor(), host1->vms()}, clock);

  ASSERT_FALSE(made);
  EXPECT_EQ(made.error().code(), Errc::kInvalid);
  EXPECT_NE(made.error().message().find("placer.pub"), std::string::npos);
}

}  // namespace
}  // namespace samepage
