#pragma once

#include <cstdint>
#include <string>

#include "migrator/boot_disks.h"
#include "tools/samepaged/disks.h"

namespace samepage::agent {

/// This host's disks as those who boot VMs need them: named after the VM.
///
/// Threads: every method may be called from any thread. Lifetime: borrows the disks.
class VmDisks final : public migrator::BootDisks {
 public:
  explicit VmDisks(Disks& disks) : disks_(disks) {}

  Result<void> expect_none(const std::string& vm) override;
  Result<Disk> make(const std::string& vm, const std::string& image,
                    std::uint64_t version) override;
  Result<std::uint64_t> freeze(const std::string& vm, const std::string& image) override;
  Result<void> discard(const std::string& vm) override;

 private:
  Disks& disks_;
};

}  // namespace samepage::agent
