#pragma once

#include <cstdint>
#include <string>

#include "core/clock.h"
#include "core/result.h"
#include "imagestore/image_store.h"

namespace samepage::imagestore {

struct CloneOptions {
  std::string source;        ///< The image.
  std::uint64_t number = 0;  ///< Of the version; 0: the newest.
  std::string name;          ///< Of the new image.
};

/// Gives a version another name: a new image whose first version it is. Constant time and room, and
/// durable when this returns.
/// kNotFound: no such image or version. kInvalid: the name is taken or not a name, or the image
/// belongs to another sharing domain.
Result<ImageVersion> clone_image(ImageStore& store, const CloneOptions& options,
                                 const Clock& clock);

}  // namespace samepage::imagestore
