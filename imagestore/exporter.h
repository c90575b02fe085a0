#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>

#include "core/result.h"
#include "imagestore/image_store.h"
#include "imagestore/importer.h"

namespace samepage::imagestore {

/// Writes version `number` of `image`, 0 for the newest, as a sparse raw file, verified page by
/// page. The file appears under its name when it is whole and flushed, or not at all.
///
/// `on_progress` as in ImportOptions. kNotFound: no such image or version. kInvalid: `path` exists
/// and is left alone. kCorrupt: the store's copy is damaged. kUnavailable: cancelled. kIo: the disk
/// refused or is full.
Result<void> export_image(ImageStore& store, const std::string& image, std::uint64_t number,
                          const std::filesystem::path& path,
                          const std::function<bool(const ImportProgress&)>& on_progress);

}  // namespace samepage::imagestore
