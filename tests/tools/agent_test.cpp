// What an agent answers the placer: each request reaches the part that it is for, and one that
// cannot be met is refused with the reason.
#include <memory>
#include <string>

#include <gtest/gtest.h>

#include "core/clock.h"
#include "tests/core/temporary_folder.h"
#include "tests/fakes/fake_hypervisor.h"
#include "tools/samepaged/migrations.h"
#include "tools/samepaged/reporter.h"
#include "tools/samepaged/request_table.h"

namespace samepage::agent {
namespace {

constexpr const char* kUuid = "11111111-2222-4333-8444-555555555555";

VmInfo paused_vm() {
  VmInfo info;
  info.id = {kUuid};
  info.name = "web";
  info.state = VmState::kPaused;
  return info;
}

TEST(RequestTableTest, AnswersByBodyAndRefusesTheRest) {
  RequestTable table;
  table.add(bus::Envelope::kListVms,
            [](const bus::Envelope&) -> Result<bus::Envelope> { return done(); });
  table.add(
      bus::Envelope::kReportNow,
      [](const bus::Envelope&) -> Result<bus::Envelope> { return fail(Errc::kIo, "no"); },
      RequestTable::Queue::kScanner);
  bus::Envelope list;
  list.mutable_list_vms();
  bus::Envelope report;
  report.mutable_report_now();

  EXPECT_TRUE(table.answer(list)->has_done());
  EXPECT_EQ(table.answer(report).error().code(), Errc::kIo);
  EXPECT_EQ(table.queue_of(list), RequestTable::Queue::kDesk);
  EXPECT_EQ(table.queue_of(report), RequestTable::Queue::kScanner);
  EXPECT_EQ(table.answer(bus::Envelope()).error().code(), Errc::kInvalid);
}

class MigrationsTest : public ::testing::Test {
 protected:
  MigrationsTest() {
    options_.socket_dir = folder_.file("migrate");
    options_.libvirt_socket = folder_.file("libvirt");
    options_.data_address = "127.0.0.1";
    options_.sessions_max = 1;
    options_.leave_max = std::chrono::milliseconds(100);
  }

  static bus::PrepareTarget arrival(const std::string& session, const std::string& uuid = kUuid) {
    bus::PrepareTarget request;
    request.set_session(session);
    request.set_secret(std::string(32, 's'));
    request.set_vm_uuid(uuid);
    request.set_vm_name("web");
    request.set_sharing_domain("default");
    return request;
  }

  TemporaryFolder folder_;
  fakes::FakeHypervisor hypervisor_;
  SharingDomain domain_{.name = "default", .seed = {7}, .key = {}};
  Migrations::Options options_;
};

TEST_F(MigrationsTest, RefusesASecretOfTheWrongSize) {
  Migrations migrations(options_, hypervisor_, {.update = {}, .outcome = {}});
  bus::PrepareTarget request = arrival(std::string(32, 'a'));
  request.set_secret("short");
  bus::StartMigration start;
  start.set_secret(std::string(33, 's'));

  EXPECT_EQ(migrations.prepare(request, domain_).error().code(), Errc::kInvalid);
  EXPECT_EQ(migrations.start(start, domain_).error().code(), Errc::kInvalid);
  EXPECT_TRUE(migrations.sessions().empty());
}

TEST_F(MigrationsTest, TakesOnNoMoreThanItMay) {
  Migrations migrations(options_, hypervisor_, {.update = {}, .outcome = {}});
  ASSERT_TRUE(migrations.prepare(arrival(std::string(32, 'a')), domain_));

  const auto second = migrations.prepare(
      arrival(std::string(32, 'b'), "99999999-2222-4333-8444-555555555555"), domain_);

  EXPECT_EQ(second.error().code(), Errc::kUnavailable);
  EXPECT_EQ(migrations.sessions(), std::vector{std::string(32, 'a')});
}

TEST_F(MigrationsTest, AnArrivalThatNobodyCameToGivesWayToTheNext) {
  Migrations migrations(options_, hypervisor_, {.update = {}, .outcome = {}});
  ASSERT_TRUE(migrations.prepare(arrival(std::string(32, 'a')), domain_));

  EXPECT_TRUE(migrations.prepare(arrival(std::string(32, 'b')), domain_));

  EXPECT_EQ(migrations.sessions(), std::vector{std::string(32, 'b')});
}

TEST_F(MigrationsTest, KnowsNothingOfASessionThatItNeverHad) {
  Migrations migrations(options_, hypervisor_, {.update = {}, .outcome = {}});

  EXPECT_EQ(migrations.cancel("none").error().code(), Errc::kNotFound);
  EXPECT_EQ(migrations.query("none").error().code(), Errc::kNotFound);
}

TEST_F(MigrationsTest, SettlesAPausedCopyThatNoSessionHolds) {
  Migrations migrations(options_, hypervisor_, {.update = {}, .outcome = {}});
  hypervisor_.add(paused_vm());

  ASSERT_TRUE(migrations.settle({kUuid}, migrator::Verdict::kResume));
  EXPECT_EQ(hypervisor_.vms()->front().state, VmState::kRunning);
  EXPECT_EQ(migrations.settle({kUuid}, migrator::Verdict::kDiscard).error().code(), Errc::kInvalid);
  EXPECT_EQ(hypervisor_.vms()->size(), 1U);
}

TEST(ReporterTest, SaysWhichGuestsAreHereWithoutReadingThem) {
  fakes::FakeHypervisor hypervisor;
  hypervisor.add(paused_vm());
  SystemClock clock;
  Reporter reporter({}, hypervisor, clock);

  const auto list = reporter.list();

  ASSERT_TRUE(list);
  ASSERT_EQ(list->vms_size(), 1);
  EXPECT_EQ(list->vms(0).uuid(), kUuid);
  EXPECT_EQ(list->vms(0).state(), bus::GUEST_PAUSED);
  EXPECT_TRUE(list->vms(0).fingerprint().empty());
}

TEST(ReporterTest, SaysWhyThereIsNoReport) {
  fakes::FakeHypervisor hypervisor;
  hypervisor.fail_next(fakes::HypervisorCall::kVms, Errc::kUnavailable);
  SystemClock clock;
  Reporter reporter({}, hypervisor, clock);

  EXPECT_EQ(reporter.report({}, Reporter::Effort::kScan).error().code(), Errc::kUnavailable);
}

}  // namespace
}  // namespace samepage::agent
