#pragma once

#include <string>

#include "core/result.h"

namespace samepage::cli {

/// Writes a picture that a command was asked for: all of it, or the file stays what it was. kIo.
Result<void> write_picture(const std::string& path, const std::string& picture);

}  // namespace samepage::cli
