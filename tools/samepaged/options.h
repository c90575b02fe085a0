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
  std::uint64_t link_mbit = 0;
  std::string hardware;
  std::string pressure_dir;
  std::string libvirt_uri = "qemu:///system";
  std::string libvirt_socket = "/run/libvirt/libvirt-sock";
  std::string run_dir = "/run/samepage";
  std::uint64_t store_mib = 0;
  bool store_huge_pages = false;
  std::string store_socket;
  std::string store_provider = "tcp;ofi_rxm";
  std::string store_origin = "dir:";
  std::string ceph_conf = "/etc/ceph/ceph.conf";
  std::string qemu_conf = "/etc/libvirt/qemu.conf";
  std::uint64_t template_mib = 4096;
  unsigned boots_at_once = 4;
  std::string store_dir = "/var/lib/samepage/store";
  std::string disks_dir = "/var/lib/samepage/disks";
  std::string mirrors_dir = "/var/lib/samepage/mirrors";
  std::uint64_t mirrors_mib = 20'480;
  std::string nbdkit_plugin;
  std::string checkpoint_dir = "/var/lib/samepage/checkpoints";
  std::uint64_t checkpoint_mib = 4096;
  double scan_cpu = 0.5;
  std::string ksm = "observe";
  double ksm_cpu = 0.2;
  bool init = false;
};

}  // namespace samepage::agent
