#pragma once

#include <string>
#include <vector>

namespace samepage::cli {

struct Check {
  enum class Verdict { kOk, kWarn, kFail };

  std::string name;  ///< Stable: scripts look for it.
  Verdict verdict = Verdict::kOk;
  std::string found;
  std::string mend;  ///< What to do about it; empty when nothing needs doing.
};

/// Where the checks look; tests point them elsewhere.
struct HostPlaces {
  std::string libvirt_uri = "qemu:///system";
  std::string kvm_device = "/dev/kvm";
  std::string ksm_folder = "/sys/kernel/mm/ksm";
  std::string page_flags = "/proc/kpageflags";
  std::string agent_key = "/etc/samepage/agent.key";
  std::string placer_key = "/etc/samepage/placer.pub";
};

// What an agent needs of this host. Nothing is changed; every check ends within seconds.

/// "libvirt", "qemu", "kvm".
std::vector<Check> check_hypervisor(const HostPlaces& places);

/// "ksm", "pagemap", "kpageflags", "pagemap_scan", "tracker".
std::vector<Check> check_kernel(const HostPlaces& places);

/// "agent_key", "placer_key".
std::vector<Check> check_keys(const HostPlaces& places);

}  // namespace samepage::cli
