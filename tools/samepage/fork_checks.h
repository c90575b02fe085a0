#pragma once

#include <string>
#include <vector>

#include "core/result.h"
#include "tools/samepage/host_checks.h"

namespace samepage::cli {

/// What forks need of libvirt's configuration; tests look elsewhere.
struct ForkPlaces {
  std::string hooks_folder = "/etc/libvirt/hooks";
  std::string qemu_conf = "/etc/libvirt/qemu.conf";
  std::string ram_folder = "/dev/shm/samepage";  ///< What mend_forks() chooses when none is set.
};

/// "fork_hook", "ram_files". Nothing is changed.
std::vector<Check> check_forks(const ForkPlaces& places);

/// Installs libvirt's hook and chooses a folder for RAM files where that is missing; returns one
/// sentence for each thing that it did. libvirtd reads both when it starts.
/// kIo: a file cannot be written; are you root?
Result<std::vector<std::string>> mend_forks(const ForkPlaces& places);

}  // namespace samepage::cli
