#pragma once

#include <cstdint>
#include <filesystem>
#include <string>

#include "core/result.h"
#include "imagestore/manifest_node.h"

namespace samepage::agent {

/// What an agent knows of a disk beside its overlay: `disk.json` in the disk's folder.
struct DiskRecord {
  std::string name;
  std::string vm;
  std::string image;
  std::uint64_t number = 0;
  imagestore::VersionId base = {};
};

/// Durable, whole or not at all.
Result<void> write_record(const std::filesystem::path& folder, const DiskRecord& record);

/// kNotFound: none is there: a creation was cut off. kCorrupt: it is damaged.
Result<DiskRecord> read_record(const std::filesystem::path& folder);

}  // namespace samepage::agent
