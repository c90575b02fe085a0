#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>

#include "core/clock.h"
#include "core/result.h"
#include "imagestore/commit.h"
#include "imagestore/image_store.h"
#include "imagestore/importer.h"

namespace samepage::imagestore {

struct FileCommitOptions {
  std::string image;
  std::filesystem::path path;   ///< What the new version shall hold.
  std::uint64_t base = 0;       ///< The version that the file was made from; 0: the newest.
  std::string format = {};      ///< As in ImportOptions.
  bool follow_backing = false;  ///< As in ImportOptions.
  bool dry_run = false;         ///< Compares only.
  std::function<bool(const ImportProgress&)> on_progress = {};  ///< As in ImportOptions.
};

struct FileCommitReport {
  std::uint64_t changed_pages = 0;  ///< That differ from the base.
  std::uint64_t zeroed_pages = 0;   ///< Of these: zeros now.
  CommitReport commit;              ///< Nothing in it on a dry run.
};

/// Makes a file's content the next version of an image: what differs from the base version is
/// committed on top of the newest one (imagestore/commit.h), so that changes that others made
/// elsewhere since stay. A file that became shorter is kInvalid: an image does not shrink.
///
/// Errors: those of Commit, open_image_source() and ImageSource; kUnavailable also: cancelled.
Result<FileCommitReport> commit_file(ImageStore& store, const FileCommitOptions& options,
                                     const Clock& clock);

}  // namespace samepage::imagestore
