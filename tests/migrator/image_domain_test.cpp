// The domain that an image is booted in, when nobody has written one.
#include "migrator/image_domain.h"

#include <gtest/gtest.h>

#include "migrator/domain_xml.h"

namespace samepage::migrator {
namespace {

TEST(ImageDomain, has_what_was_asked_for) {
  const std::string xml = image_domain_xml({.name = "web",
                                            .memory_mib = 512,
                                            .vcpus = 2,
                                            .kernel = "/boot/vmlinuz",
                                            .command_line = "root=/dev/vda & quiet",
                                            .nic = "bridge=br0"})
                              .value();
  const auto summary = summarize_domain(xml).value();
  EXPECT_EQ(summary.name, "web");
  EXPECT_EQ(summary.memory_bytes, std::uint64_t{512} << 20U);
  EXPECT_EQ(summary.vcpus, 2U);
  EXPECT_EQ(serial_file(xml).value(), "/var/log/libvirt/qemu/web.serial.log");
  EXPECT_NE(xml.find("root=/dev/vda &amp; quiet"), std::string::npos);
  EXPECT_NE(xml.find("<source bridge=\"br0\""), std::string::npos);
  EXPECT_TRUE(has_network_card(xml));
  EXPECT_FALSE(has_network_card(image_domain_xml({.name = "web"}).value()));
  EXPECT_TRUE(leader_xml(xml, {.name = "leader", .id = {}}));
}

TEST(ImageDomain, refuses_what_is_no_vm) {
  EXPECT_FALSE(image_domain_xml({.name = "web", .memory_mib = 0}));
  for (const char* nic : {"br0", "bridge=", "user=x"}) {
    EXPECT_EQ(image_domain_xml({.name = "web", .nic = nic}).error().code(), Errc::kInvalid) << nic;
  }
}

}  // namespace
}  // namespace samepage::migrator
