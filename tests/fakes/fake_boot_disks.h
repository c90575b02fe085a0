#pragma once

#include <map>
#include <string>

#include "migrator/boot_disks.h"

namespace samepage::fakes {

/// Disks that exist in memory only. Threads: one.
class FakeBootDisks final : public migrator::BootDisks {
 public:
  std::map<std::string, std::string> disks;                         ///< VM -> "IMAGE@VERSION".
  std::map<std::string, std::uint64_t> versions = {{"debian", 7}};  ///< By image: the newest.
  bool refuses = false;                                             ///< To make disks.

  Result<void> expect_none(const std::string& vm) override {
    if (!disks.contains(vm)) return {};
    return samepage::fail(Errc::kInvalid, "there is a disk " + vm);
  }
  Result<Disk> make(const std::string& vm, const std::string& image,
                    std::uint64_t version) override {
    TRY(expect_none(vm));
    if (refuses) return samepage::fail(Errc::kIo, "no room");
    if (!versions.contains(image)) return samepage::fail(Errc::kNotFound, "no such image");
    if (version == 0) version = versions[image];
    disks[vm] = image + "@" + std::to_string(version);
    const std::string socket = "/run/" + vm + ".nbd";
    return Disk{.socket = socket,
                .element =
                    "<disk type='network' device='disk'><source protocol='nbd'><host "
                    "transport='unix' socket='" +
                    socket + "'/></source><target dev='vda' bus='virtio'/></disk>",
                .version = version};
  }
  Result<std::uint64_t> freeze(const std::string& vm, const std::string& image) override {
    if (!disks.contains(vm)) return samepage::fail(Errc::kNotFound, "no such disk");
    return ++versions[image];
  }
  Result<void> discard(const std::string& vm) override {
    disks.erase(vm);
    return {};
  }
};

}  // namespace samepage::fakes
