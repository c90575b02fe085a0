#include "migrator/emulation.h"

#include <filesystem>
#include <fstream>

#include <gtest/gtest.h>

#include "tests/core/temporary_folder.h"

namespace samepage::migrator {
namespace {

TEST(EmulationTest, IsSeenFromTheNamesOfTheThreads) {
  const TemporaryFolder proc;
  const auto qemu = [&](const std::string& pid, const std::string& thread) {
    const auto task = std::filesystem::path(proc.file(pid)) / "task";
    std::filesystem::create_directories(task / "1");
    std::filesystem::create_directories(task / "2");
    std::ofstream(task / "1" / "comm") << "qemu-system-x86\n";
    std::ofstream(task / "2" / "comm") << thread << "\n";
  };
  qemu("11", "CPU 0/TCG");
  qemu("12", "CPU 0/KVM");
  EXPECT_TRUE(is_emulated(11, proc.file("")));
  EXPECT_FALSE(is_emulated(12, proc.file("")));
  EXPECT_FALSE(is_emulated(13, proc.file("")));
}

}  // namespace
}  // namespace samepage::migrator
