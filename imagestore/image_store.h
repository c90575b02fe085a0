#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_set>

#include "core/result.h"
#include "core/sharing_domain.h"
#include "imagestore/catalog.h"
#include "imagestore/dir_origin.h"
#include "imagestore/object_format.h"
#include "imagestore/origin.h"
#include "imagestore/page_index.h"

namespace samepage::imagestore {

/// Images: objects in an origin, the index of their pages, the catalog of names, and the key of the
/// sharing domain that they are used for.
///
/// The origin and the catalog are in the store's folder, or in a Ceph pool that many hosts share;
/// the page index and the key are this host's, in the folder.
///
/// Invariant: what the catalog names is durable in the origin.
/// Threads: one at a time; a thread of its own opens a store of its own. Any number of them write,
/// in any process.
class ImageStore final {
 public:
  struct Options {
    std::filesystem::path folder = "/var/lib/samepage/store";
    DirOrigin::Access access = DirOrigin::Access::kRead;
    /// None: the domain `default`, with a key that is made at first use and kept in the folder,
    /// readable by its owner only.
    std::optional<SharingDomain> domain = {};
    std::uint64_t pack_bytes_max = 256U << 20U;
    std::string origin = "dir:";  ///< Or `rados:POOL`, `rados:POOL/NAMESPACE`.
    std::filesystem::path ceph_conf = "/etc/ceph/ceph.conf";
  };

  /// Opening for writing creates what is missing and mends what a crash left.
  /// kNotFound: opened for reading and no store is there. kUnavailable: a stopped process holds a
  /// lock, or the Ceph cluster does not answer. kInvalid: the store knows the domain by another
  /// key, was written by a newer release, or `origin` is no origin.
  static Result<std::unique_ptr<ImageStore>> open(const Options& options);

  Origin& origin() { return *origin_; }
  PageIndex& pages() { return *pages_; }
  Catalog& catalog() { return *catalog_; }
  const DomainKeys& keys() const { return keys_; }
  const std::string& sharing_domain() const { return domain_; }
  const DirOrigin::Repairs& repairs() const { return repairs_; }

  /// An image, if it belongs to the store's sharing domain. kNotFound, or kInvalid: it does not.
  Result<Image> find_image(std::string_view name);

  /// Relies on an extent that the page index named: its pages go into a manifest.
  Result<void> rely_on(const ObjectName& extent);

  /// Makes objects and pages put so far durable, in the order that the invariant needs.
  /// kUnavailable: an object that was relied on was swept meanwhile. It is forgotten: begin again.
  Result<void> commit();

  /// Takes back everything since the last commit().
  Result<void> discard();

 private:
  ImageStore(std::string domain, const DomainKeys& keys, std::unique_ptr<Origin> origin,
             std::unique_ptr<PageIndex> pages, std::unique_ptr<Catalog> catalog);
  Result<void> adopt_extents();
  Result<void> forget_swept();

  std::string domain_;
  DomainKeys keys_;
  std::unique_ptr<Origin> origin_;
  std::unique_ptr<PageIndex> pages_;
  std::unique_ptr<Catalog> catalog_;
  DirOrigin::Repairs repairs_;
  std::unordered_set<ObjectName> relied_on_;  ///< Extents, since the last commit().
};

/// Relies on every object that a version consists of, and commits. kUnavailable: something was
/// swept.
Result<void> keep_version(ImageStore& store, const VersionId& version);

}  // namespace samepage::imagestore
