#pragma once

#include <cstdint>
#include <string>

#include "core/result.h"

namespace samepage::migrator {

/// The VM to boot from an image when nobody has written a domain for it: machine `pc`, a serial
/// line that goes to a file, the guest agent's channel, and no disk yet (leader_xml() adds it).
struct ImageDomain {
  std::string name;
  std::uint64_t memory_mib = 1024;
  unsigned vcpus = 1;
  std::string kernel =
      {};  ///< A file on the host, to be booted directly; empty: the disk's loader.
  std::string initrd = {};
  std::string command_line = {};  ///< Of the kernel.
  std::string nic = {};           ///< "network=NAME" or "bridge=NAME" of libvirt; empty: none.
  bool has_kvm = false;
  std::string serial_folder = "/var/log/libvirt/qemu";
};

/// kInvalid: no memory or processors, or `nic` is neither; the message says which.
Result<std::string> image_domain_xml(const ImageDomain& domain);

}  // namespace samepage::migrator
