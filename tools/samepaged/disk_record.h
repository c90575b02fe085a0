#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>

#include "core/result.h"
#include "imagestore/manifest_node.h"

namespace samepage::agent {

/// Where a disk is on its way between hosts. Only one that is kHere is certainly the newest there
/// is. Who may be removed by whom: docs/design-notes.md, "A disk moves with its VM".
enum class DiskPhase : std::uint8_t {
  kHere,
  kArriving,  ///< Pages come; the source has all of them.
  kArrived,   ///< All is here, and the source's agent may know.
  kLeaving,   ///< Pages go; the target may have all of them.
  kLeft,      ///< The VM runs on the target.
};

std::string_view to_string(DiskPhase phase);

/// What an agent knows of a disk beside its overlay: `disk.json` in the disk's folder.
struct DiskRecord {
  std::string name;
  std::string vm;
  std::string image;
  std::uint64_t number = 0;
  imagestore::VersionId base = {};
  DiskPhase phase = DiskPhase::kHere;
  std::string vm_uuid = {};  ///< Of the VM that it moves with; empty: it never moved.
  bool has_moved = false;    ///< What its VM reads is no boot any more.
};

/// Durable, whole or not at all.
Result<void> write_record(const std::filesystem::path& folder, const DiskRecord& record);

/// kNotFound: none is there: a creation was cut off. kCorrupt: it is damaged.
Result<DiskRecord> read_record(const std::filesystem::path& folder);

}  // namespace samepage::agent
