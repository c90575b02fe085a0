#pragma once

#include <filesystem>
#include <string>

#include "core/result.h"
#include "imagestore/commit.h"
#include "imagestore/image_store.h"
#include "imagestore/overlay.h"

namespace samepage::imagestore {

struct DiskCommitOptions {
  std::string image;              ///< To commit to; made as a clone when there is none.
  std::string source_image = {};  ///< Where the disk's base may be found by name.
};

/// Makes the frozen pages of an overlay a version of an image, and tells the overlay. Durable when
/// it returns.
///
/// Killed after the image's head moved and before the overlay knew it, the commit is there although
/// nobody was told: the version was written to the file `intent` first, and the next commit goes on
/// from it instead of fighting with it.
/// Errors: Commit's and ImageStore::open()'s; the caller abandons the frozen pages.
Result<CommitReport> commit_overlay(Overlay& overlay, const std::filesystem::path& intent,
                                    ImageStore::Options store, const DiskCommitOptions& options);

}  // namespace samepage::imagestore
