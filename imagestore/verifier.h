#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "core/result.h"
#include "imagestore/image_store.h"
#include "imagestore/importer.h"

namespace samepage::imagestore {

struct VerifyOptions {
  std::string image = {};  ///< Empty: every image, and every stored object whether used or not.
  std::size_t problems_max = 100;  ///< That are described; all are counted.
  std::function<bool(const ImportProgress&)> on_progress = {};  ///< As in ImportOptions.
};

struct VerifyReport {
  std::uint64_t images = 0;
  std::uint64_t versions = 0;
  std::uint64_t nodes = 0;  ///< Of manifests, each once.
  std::uint64_t pages = 0;  ///< Named by distinct leaves of manifests; every one was read.
  std::uint64_t objects = 0;
  std::uint64_t object_bytes = 0;
  std::uint64_t stored_pages = 0;  ///< In extents; every one was digested.

  /// Objects that no image uses: of imports that did not finish, or that are under way.
  std::uint64_t reclaimable_objects = 0;
  std::uint64_t reclaimable_bytes = 0;

  /// Of sharing domains whose key was not given: only their checksums were compared.
  std::uint64_t images_unchecked = 0;
  std::uint64_t objects_unchecked = 0;

  std::uint64_t problems = 0;
  std::vector<std::string> descriptions;

  bool clean() const { return problems == 0; }
};

/// Checks a store against itself, through nothing but what is on the disk: every image's manifest
/// and every page that it names, and every stored object's checksum, name and digests. Damage is
/// reported, not an error. Reads everything about twice.
/// Memory: about 64 bytes for each node and extent.
///
/// kNotFound: no such image. kUnavailable: cancelled. kIo: the disk or a database refused.
Result<VerifyReport> verify_store(ImageStore& store, const VerifyOptions& options);

}  // namespace samepage::imagestore
