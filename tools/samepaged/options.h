#pragma once

#include <cstdint>
#include <string>

namespace samepage::agent {

/// The agent's configuration; docs/man/samepaged.8 describes each.
struct Options {
  std::string placer;
  std::string key_file = "/etc/samepage/agent.key";
  std::string placer_key_file = "/etc/samepage/placer.pub";
  std::string data_address;
  std::uint64_t memory_mib = 0;
  std::string libvirt_uri = "qemu:///system";
  std::string libvirt_socket = "/run/libvirt/libvirt-sock";
  std::string run_dir = "/run/samepage";
  std::string store_dir = "/var/lib/samepage/store";
  std::string checkpoint_dir = "/var/lib/samepage/checkpoints";
  std::uint64_t checkpoint_mib = 4096;
  double scan_cpu = 0.5;
  std::string ksm = "observe";
  double ksm_cpu = 0.2;
  bool init = false;
};

}  // namespace samepage::agent
