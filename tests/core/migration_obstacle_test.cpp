// The promise under test: what cannot migrate is told before anything is done, with the reason and
// what to do, and nothing else is held up.

#include "core/migration_obstacle.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace samepage {
namespace {

using ::testing::HasSubstr;

std::string domain(const std::string& devices, const std::string& before = "") {
  return "<domain type='kvm' id='1'>\n  <name>web</name>\n" + before +
         "  <devices>\n    <disk type='file' device='disk'/>\n" + devices +
         "  </devices>\n</domain>\n";
}

TEST(MigrationObstacle, AnOrdinaryVmHasNone) {
  EXPECT_FALSE(obstacle_in_domain(domain("    <interface type='network'/>\n")));
  EXPECT_FALSE(obstacle_in_domain(domain("    <host transport='unix' socket='/run/x.nbd'/>\n")));
  EXPECT_FALSE(obstacle_in_domain(""));
}

TEST(MigrationObstacle, NamesTheReasonAndWhatToDo) {
  EXPECT_THAT(*obstacle_in_domain(domain("", "  <launchSecurity type='sev'>\n")),
              HasSubstr("encrypted (launchSecurity)"));
  EXPECT_THAT(*obstacle_in_domain(domain("    <hostdev mode='subsystem' type='pci'>\n")),
              HasSubstr("virsh detach-device"));
  EXPECT_THAT(*obstacle_in_domain(domain("    <interface type='hostdev' managed='yes'>\n")),
              HasSubstr("virsh detach-interface"));
  EXPECT_THAT(*obstacle_in_domain(domain("    <filesystem type='mount'>\n")),
              HasSubstr("shares a folder"));
  EXPECT_THAT(*obstacle_in_domain(domain("    <shmem name='x'>\n")), HasSubstr("shares memory"));
}

TEST(MigrationObstacle, IsNotFoundInOtherPeoplesWords) {
  EXPECT_FALSE(obstacle_in_domain(
      domain("", "<metadata><x:y xmlns:x='z'><hostdev a='b'/></x:y></metadata>")));
  EXPECT_FALSE(obstacle_in_domain(domain("", "<description><hostdev </description>")));
  EXPECT_TRUE(obstacle_in_domain(domain("<hostdev mode='x'/>", "<metadata></metadata>")));
}

TEST(MigrationObstacle, TlsInsideQemuIsOneWhenItIsForced) {
  EXPECT_FALSE(obstacle_in_qemu_conf("#migrate_tls_force = 1\n"));
  EXPECT_FALSE(obstacle_in_qemu_conf("migrate_tls_force = 0\nmigrate_tls_force_x = 1"));
  EXPECT_FALSE(obstacle_in_qemu_conf(""));
  EXPECT_THAT(*obstacle_in_qemu_conf("user = \"root\"\n  migrate_tls_force=1\n"),
              HasSubstr("migrate_tls_force = 0"));
}

TEST(MigrationObstacle, OldQemuIsOne) {
  EXPECT_FALSE(obstacle_in_version("QEMU 7.2.22"));
  EXPECT_FALSE(obstacle_in_version("QEMU 10.0.2"));
  EXPECT_FALSE(obstacle_in_version("Test 1.0.0"));
  EXPECT_FALSE(obstacle_in_version("QEMU"));
  EXPECT_FALSE(obstacle_in_version("QEMU 7"));
  EXPECT_THAT(*obstacle_in_version("QEMU 6.2.0"), HasSubstr("6.2 is older than 7.2"));
  EXPECT_TRUE(obstacle_in_version("QEMU 7.1.9"));
}

TEST(MigrationObstacle, DisksThatWereNeverUsedAreOne) {
  EXPECT_THAT(*obstacle_in_sleep(domain(""), "QEMU 7.2.22"), HasSubstr("virsh resume"));
  EXPECT_TRUE(obstacle_in_sleep("<domain><os><nvram>/x</nvram></os></domain>", "QEMU 9.2.0"));
  EXPECT_FALSE(obstacle_in_sleep(domain(""), "QEMU 10.0.2"));
  EXPECT_FALSE(obstacle_in_sleep(domain(""), "Test 1.0.0"));
  EXPECT_FALSE(obstacle_in_sleep("<domain><description><disk </description><devices/></domain>",
                                 "QEMU 7.2.22"));
}

}  // namespace
}  // namespace samepage
