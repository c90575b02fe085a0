#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <utility>

#include "core/fd.h"
#include "core/result.h"
#include "imagestore/manifest_node.h"
#include "imagestore/overlay_log.h"
#include "imagestore/page_map.h"

namespace samepage::imagestore {

/// What this host has read of one version (copy on reference, Nicolae 2010): a sparse file with the
/// pages at their own offsets and a map of those that are there. All disks on this host that stand
/// on the version share it, each through its own process: what one has fetched all have, and the
/// host's page cache holds it once.
///
/// Invariant: who puts a page has verified it; data is in the file before the map says so. A mirror
/// of an earlier boot of the machine is empty: what a power cut left is not told apart.
/// Threads: any, in any process. Errors: kIo: the disk refused or is full.
class Mirror final {
 public:
  /// Of `pages` pages, in a folder below `folder` that is named by the version. Makes what is
  /// missing.
  static Result<std::unique_ptr<Mirror>> open(const std::filesystem::path& folder,
                                              const VersionId& version, std::uint64_t pages);

  /// The longest run of pages from `first` on in one state, below `end`: kBase: not here.
  StateRun run_at(std::uint64_t first, std::uint64_t end) const;

  bool has(std::uint64_t page) const { return map_[page] != 0; }

  /// Reads bytes of pages that are kWritten.
  Result<void> read(std::uint64_t offset, std::span<std::byte> bytes) const;

  /// Takes whole pages.
  Result<void> put(std::uint64_t first, std::span<const std::byte> pages);
  void put_zeros(std::uint64_t first, std::uint64_t count);

  /// Removes a mirror that no process has open. False: one has.
  static Result<bool> remove_unused(const std::filesystem::path& mirror);

 private:
  Mirror(Fd lock, Fd data, PageMap map)
      : lock_(std::move(lock)), data_(std::move(data)), map_(std::move(map)) {}

  Fd lock_;
  Fd data_;
  PageMap map_;
};

}  // namespace samepage::imagestore
