// The placer's service and the agents understand each other over the real bus: who may join, what
// is reported of a host, and what is said when something cannot be done. The hypervisors are
// fakes; guests on real ones are the system tests' subject.
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
