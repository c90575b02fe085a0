#pragma once

#include <cstdint>
#include <string>

#include "core/result.h"

namespace samepage::imagestore {

/// What an image file's own first bytes say. The file's name says nothing.
struct ImageFormat {
  std::string name = "raw";  ///< QEMU's name of the format.

  /// The image takes bytes from other files, which its maker chose: a backing file, an external
  /// data file, extents. Empty, or a sentence's part that names them: "the backing file
  /// /etc/shadow".
  std::string other_files;
  bool is_chain = false;  ///< The other file is a backing file, which can be followed on request.
};

/// Reads the file's headers through `fd`. kIo: it cannot be read. Damaged headers are left for
/// QEMU to refuse.
Result<ImageFormat> detect_format(int fd);

/// kInvalid: not a format name that can be given to QEMU.
Result<void> check_format_name(const std::string& format);

}  // namespace samepage::imagestore
