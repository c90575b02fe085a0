#pragma once

#include <string>

#include "core/fd.h"
#include "core/result.h"

namespace samepage::cli {

/// What a disk image's boot loader would start: for booting it directly, with another command line.
struct ImageKernel {
  Fd kernel;                 ///< Files without a name.
  Fd initrd;                 ///< None when there is none.
  std::string command_line;  ///< As GRUB's menu has it; root=/dev/vda when there is no menu.
};

/// From a raw disk with an ext2, ext3 or ext4 file system, on all of it or in a partition (MBR,
/// GPT), that has a kernel /boot/vmlinuz-*: the newest, read by debugfs(8). kNotFound: there is
/// none, or no debugfs. kIo: `folder`, where the files are made, has no room.
Result<ImageKernel> find_image_kernel(const Fd& disk, const std::string& folder);

/// A kernel's command line with console=ttyS0, unless there is one.
std::string with_serial_console(const std::string& command_line);

}  // namespace samepage::cli
