#pragma once

#include <cstdint>
#include <string>

#include "core/result.h"

namespace samepage::migrator {

/// The disks of VMs that are booted here. The agent's disks in programs, a fake in tests/fakes/.
///
/// Each VM has at most one, known by the VM's name, on top of an image version of the store.
/// Threads: every method may be called from any thread. Errors besides those given: the store's.
class BootDisks {
 public:
  virtual ~BootDisks() = default;

  struct Disk {
    std::string socket;   ///< Where QEMU reaches it.
    std::string element;  ///< libvirt's <disk>.
    std::uint64_t version = 0;
  };

  /// kInvalid: a disk of the VM's name is there, perhaps of a VM that has ended; the message says
  /// how to remove it.
  virtual Result<void> expect_none(const std::string& vm) = 0;

  /// A disk that nobody has written to, on a version of an image; 0: the newest.
  /// kInvalid: as expect_none(). kNotFound: no such image or version.
  virtual Result<Disk> make(const std::string& vm, const std::string& image,
                            std::uint64_t version) = 0;

  /// Makes what the disk is now a version of `image`; its number. The VM is suspended.
  virtual Result<std::uint64_t> freeze(const std::string& vm, const std::string& image) = 0;

  /// The VM has ended, and the disk goes with it. One that is not there is no error.
  virtual Result<void> discard(const std::string& vm) = 0;
};

/// The image of which the disks of a template's leaders are versions.
inline std::string disk_image_of(const std::string& template_name) {
  return template_name + ".disk";
}

}  // namespace samepage::migrator
