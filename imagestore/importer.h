#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "core/clock.h"
#include "core/result.h"
#include "imagestore/catalog.h"
#include "imagestore/extent.h"
#include "imagestore/image_store.h"

namespace samepage::imagestore {

struct ImportProgress {
  std::uint64_t bytes_done = 0;  ///< Of the image as the guest sees it.
  std::uint64_t bytes_total = 0;
};

struct ImportOptions {
  std::filesystem::path path;
  std::string name = {};        ///< Empty: the file's name without its last extension.
  std::string format = {};      ///< Empty: as the content says; the file's name says nothing.
  bool follow_backing = false;  ///< Read what backing files of the image hold, wherever they are.
  unsigned threads = 2;         ///< To digest and compress.

  /// Pages that shall lie side by side, in this order, for they are read in this order: a boot
  /// trace. Those that the image does not have, or the store already, are passed over. The file is
  /// read twice then.
  std::vector<PageDigest> order = {};

  /// Pages that are stored and fetched as one: 1 to kExtentPagesMax. Fewer make reading of single
  /// pages cheaper, more make packing and long reads cheaper.
  std::size_t extent_pages = kExtentPagesMax;

  /// Called a few times a second at most, and at the end; false cancels the import.
  std::function<bool(const ImportProgress&)> on_progress = {};
};

struct ImportReport {
  std::string name;
  ImageVersion version;
  std::uint64_t pages = 0;            ///< Of the image, zeros included.
  std::uint64_t zero_pages = 0;       ///< All zero, which take no room.
  std::uint64_t duplicate_pages = 0;  ///< Held by the store already, or met before in this image.
  std::uint64_t new_pages = 0;
  std::uint64_t extents = 0;  ///< That the new pages went into.
};

/// Reads an image file, of any format that QEMU knows, into the store as a new image's first
/// version. Each page that the store already holds, in whatever image, is kept once.
///
/// All or nothing: the image is visible, and durable, when this returns; after an error nothing of
/// it is, and the room that it took is free again, but for images of more than 1 GiB, where what
/// was stored in earlier rounds waits for a next import of the same pages or for collect_garbage().
///
/// Errors: those of open_image_source() and ImageSource. kInvalid also: the name is taken or not a
/// name, or an extent cannot have so many pages. kUnavailable also: cancelled. kIo also: the
/// store's disk is full, or the file changed.
Result<ImportReport> import_image(ImageStore& store, const ImportOptions& options,
                                  const Clock& clock);

}  // namespace samepage::imagestore
