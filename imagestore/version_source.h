#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "core/clock.h"
#include "core/result.h"
#include "imagestore/extent_source.h"
#include "imagestore/image_store.h"
#include "imagestore/manifest.h"
#include "imagestore/node_cache.h"
#include "imagestore/store_client.h"
#include "imagestore/store_control.h"
#include "imagestore/store_scout.h"

namespace samepage::imagestore {

/// Everything that one thread reads a version with: its manifest, and where its extents come from
/// (this host's store node, their homes on the ring, hosts that have read the version, and last the
/// origin).
///
/// Threads: one at a time. Members in order of construction dependence.
class VersionSource final {
 public:
  struct Options {
    ImageStore::Options store;
    std::string agent_socket = {};  ///< Of this host's agent; empty: the origin alone.
  };

  /// What was read from elsewhere: not from this host's own store node.
  struct Counts {
    std::uint64_t origin_bytes = 0;    ///< Objects out of the origin.
    std::uint64_t node_bytes = 0;      ///< Of these: manifest nodes.
    std::uint64_t own_extents = 0;     ///< Out of this host's store node.
    std::uint64_t remote_extents = 0;  ///< Out of other hosts'.
    std::uint64_t origin_extents = 0;
    std::uint64_t failed_checks = 0;  ///< Copies that were not what they are called.
  };

  /// Errors: ImageStore::open()'s and Manifest::open()'s.
  static Result<std::unique_ptr<VersionSource>> open(const Options& options,
                                                     const VersionId& version);

  Manifest& manifest() { return *manifest_; }
  ExtentSource& extents();

  /// Takes in what has become of the store's nodes. Cheap; call it again and again while reading.
  void tend();

  ImageStore& store() { return *store_; }
  Counts counts() const;

 private:
  explicit VersionSource(std::unique_ptr<ImageStore> store);

  SystemClock clock_;
  std::unique_ptr<ImageStore> store_;
  NodeCache origin_;
  OriginExtents origin_extents_;
  std::unique_ptr<StoreControl> control_;
  std::unique_ptr<StoreClient> client_;
  std::unique_ptr<StoreScout> scout_;
  Deadline next_tell_{};
  std::unique_ptr<Manifest> manifest_;
};

}  // namespace samepage::imagestore
