#pragma once

#include <memory>
#include <string>

#include "core/fd.h"
#include "core/result.h"
#include "imagestore/image_source.h"

namespace samepage::imagestore {

/// An image as qemu-nbd shows it, which runs as a child for as long as the source lives. Where the
/// kernel has Landlock, the child can open this image and QEMU's own files and no other, whatever
/// the image says. kInvalid: QEMU refuses the image; the message is QEMU's. Others as next().
Result<std::unique_ptr<ImageSource>> open_nbd_source(Fd image, const std::string& format);

/// The same by path, with the backing files that the image names and with all that they name:
/// only for images whose maker is trusted.
Result<std::unique_ptr<ImageSource>> open_nbd_chain(const std::string& path,
                                                    const std::string& format);

}  // namespace samepage::imagestore
