#pragma once

#include <memory>

#include "core/fd.h"
#include "core/result.h"
#include "imagestore/image_source.h"

namespace samepage::imagestore {

/// A file or block device whose bytes are the guest's. kIo: its size cannot be told.
Result<std::unique_ptr<ImageSource>> open_raw_source(Fd fd);

}  // namespace samepage::imagestore
